//! A call of a function with known parameters: the key of its answer, and where the answer is written.

use super::{
    layout, memory,
    signature::{Parameter, parameters},
};
use crate::{
    numeric::clamp_u32,
    recording::{Answer, NODE, Value},
    return_code::ReturnCode,
};

/// A call.
pub(super) struct Request {
    /// The device or instance.
    pub(super) target: String,
    /// The function and its inputs.
    pub(super) key: String,
    outputs: Vec<Output>,
}

/// What a function writes: addresses and sizes.
enum Output {
    Handle(usize),
    Text(usize, usize),
    Members(usize, &'static str),
    Rows { count: usize, capacity: u32, rows: usize, layout: &'static str },
}

impl Request {
    /// The call of `function` with these arguments; `name` is the name of a handle. `None` if its parameters are
    /// not known.
    pub(super) fn new(
        function: &str,
        words: &[usize],
        name: impl Fn(usize) -> String,
    ) -> Option<Self> {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        // SAFETY: the second argument is null or a struct that begins with its version.
        let version = || unsafe { memory::read_u32(word(1)) } >> 24;
        let (parameters, version) = parameters(function, version)?;
        let mut request =
            Self { target: NODE.to_owned(), key: function.to_owned(), outputs: Vec::new() };
        let mut at = 0;
        for parameter in parameters {
            let value = word(at);
            at += 1;
            let output = match parameter {
                Parameter::Target => {
                    request.target = name(value);
                    continue;
                }
                Parameter::Number => {
                    request.add_input(&value.to_string());
                    continue;
                }
                Parameter::Device => {
                    request.add_input(&name(value));
                    continue;
                }
                Parameter::Text => {
                    // SAFETY: the caller passes null or a NUL-terminated text.
                    request.add_input(&unsafe { memory::text(value) });
                    continue;
                }
                Parameter::Ignored => continue,
                Parameter::OutHandle => Output::Handle(value),
                Parameter::OutText => {
                    at += 1;
                    Output::Text(value, word(at - 1))
                }
                Parameter::Out(layout) => Output::Members(value, layout),
                Parameter::OutOfText(layout) => {
                    // SAFETY: the caller passes null or a struct that begins with the address of a text.
                    let path = unsafe { memory::text_at(value) };
                    request.add_input(below_mount(&path));
                    Output::Members(value, layout)
                }
                Parameter::Rows(layout) => {
                    at += 1;
                    // SAFETY: the caller passes null or the capacity of its array.
                    let capacity = unsafe { memory::read_u32(value) };
                    Output::Rows { count: value, capacity, rows: word(at - 1), layout }
                }
            };
            request.outputs.push(output);
        }
        if let Some(version) = version {
            request.add_input(&format!("version {version}"));
        }
        Some(request)
    }

    fn add_input(&mut self, input: &str) {
        self.key.push(' ');
        self.key.push_str(input);
    }

    /// What the function has written; `name` is the name of a handle that it returned.
    pub(super) fn read(&self, name: impl Fn(usize) -> String) -> Answer {
        let mut values = Vec::new();
        for output in &self.outputs {
            match output {
                Output::Handle(address) => {
                    // SAFETY: the function has written a handle there.
                    let bytes = unsafe { memory::bytes(*address, size_of::<usize>()) };
                    let handle = bytes.and_then(|bytes| bytes.first_chunk().copied());
                    values.push(Value::Text(name(handle.map_or(0, usize::from_ne_bytes))));
                }
                Output::Text(address, length) => {
                    // SAFETY: the caller passed a buffer of this size.
                    let bytes = unsafe { memory::bytes(*address, *length) };
                    values.extend(bytes.map(|bytes| layout::text(bytes)));
                }
                Output::Members(address, layout) => {
                    // SAFETY: the caller passed a struct of this layout.
                    let bytes = unsafe { memory::bytes(*address, layout::size(layout)) };
                    values.extend(bytes.iter().flat_map(|bytes| layout::decode(bytes, layout)));
                }
                Output::Rows { count, capacity, rows, layout } => {
                    // SAFETY: the function has written the number of rows.
                    let count = unsafe { memory::read_u32(*count) }.min(*capacity);
                    return Answer::Rows(read_rows(*rows, count, layout));
                }
            }
        }
        Answer::Values(values)
    }

    /// Writes an answer; `handle` is the handle of a name.
    pub(super) fn write(
        &self,
        answer: &Answer,
        handle: impl Fn(&str) -> usize,
    ) -> Result<(), ReturnCode> {
        let mut values = match answer {
            Answer::Values(values) => values.clone().into_iter(),
            Answer::Rows(_) | Answer::Error(_) | Answer::Hang => Vec::new().into_iter(),
        };
        for output in &self.outputs {
            match output {
                Output::Handle(address) => {
                    let Some(Value::Text(name)) = values.next() else { continue };
                    // SAFETY: the caller passes null or a place for a handle.
                    if let Some(place) = unsafe { memory::bytes(*address, size_of::<usize>()) } {
                        place.copy_from_slice(&handle(&name).to_ne_bytes());
                    }
                }
                Output::Text(address, length) => {
                    let Some(value) = values.next() else { continue };
                    // SAFETY: the caller passes null or a buffer of this size.
                    let Some(place) = (unsafe { memory::bytes(*address, *length) }) else {
                        return Err(ReturnCode::INVALID_ARGUMENT);
                    };
                    if matches!(&value, Value::Text(text) if text.len() >= place.len()) {
                        return Err(ReturnCode::INSUFFICIENT_SIZE);
                    }
                    let layout = format!("{length}s");
                    layout::encode(place, &layout, &mut std::iter::once(value));
                }
                Output::Members(address, layout) => {
                    // SAFETY: the caller passes null or a struct of this layout.
                    let Some(place) = (unsafe { memory::bytes(*address, layout::size(layout)) })
                    else {
                        return Err(ReturnCode::INVALID_ARGUMENT);
                    };
                    layout::encode(place, layout, &mut values);
                }
                Output::Rows { count, capacity, rows, layout } => {
                    let Answer::Rows(list) = answer else { continue };
                    // SAFETY: the caller passes its capacity, and an array of that many rows.
                    return unsafe { write_rows(*count, *capacity, *rows, layout, list) };
                }
            }
        }
        Ok(())
    }
}

/// The rows that a function has written.
pub(super) fn read_rows(address: usize, count: u32, layout: &str) -> Vec<Vec<i64>> {
    let size = layout::size(layout);
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: the function has written that many rows.
    let Some(bytes) = (unsafe { memory::bytes(address, count * size) }) else { return Vec::new() };
    let number = |value| match value {
        Value::Number(number) => number,
        Value::Float(_) | Value::Text(_) => 0,
    };
    let row = |row| layout::decode(row, layout).into_iter().map(number).collect();
    bytes.chunks_exact(size).map(row).collect()
}

/// A cgroup by its path below the mount, which differs between machines: what follows the directory `cgroup`.
fn below_mount(path: &str) -> &str {
    match path.split_once("/cgroup") {
        Some((_, "")) => "/",
        Some((_, below)) if below.starts_with('/') => below,
        Some(_) | None => path,
    }
}

/// Writes the number of rows, and the rows if they fit.
///
/// # Safety
/// `count` is null or valid for a write, and `address` null or an array of `capacity` rows of this layout.
pub(super) unsafe fn write_rows(
    count: usize,
    capacity: u32,
    address: usize,
    layout: &str,
    rows: &[Vec<i64>],
) -> Result<(), ReturnCode> {
    let needed = clamp_u32(rows.len());
    // SAFETY: by this function's contract.
    unsafe { memory::write_u32(count, needed) };
    if needed > capacity {
        return Err(ReturnCode::INSUFFICIENT_SIZE);
    }
    let size = layout::size(layout);
    // SAFETY: by this function's contract: there is room for that many rows.
    let Some(bytes) = (unsafe { memory::bytes(address, rows.len() * size) }) else { return Ok(()) };
    for (place, row) in bytes.chunks_exact_mut(size).zip(rows) {
        layout::encode(place, layout, &mut row.iter().map(|number| Value::Number(*number)));
    }
    Ok(())
}
