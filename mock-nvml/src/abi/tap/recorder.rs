//! Passes calls to a driver's library and records what it returns.

mod library;
mod log;

use std::{
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use nvml_wrapper_sys::bindings::{
    field_id, nvmlDevice_t, nvmlEventData_t, nvmlFieldValue_t, nvmlReturn_t,
};

use self::{library::DriverLibrary, log::Log};
use super::{
    memory, pointer,
    request::{Request, read_rows},
    signature::RETIRED_PAGES,
    utilization::{NEW_ROW, OLD_ROW, RowFormat, SAMPLE, recorded_rows, recorded_samples},
};
use crate::{
    abi::{gpm, library_file::library_path},
    clock,
    environment_dir::RECORDED_LIBRARY,
    exported_functions::FUNCTIONS,
    recording::{ALL_BITS, Answer, Value},
    return_code::ReturnCode,
};

pub(in crate::abi) use self::library::missing_functions;
pub(super) use self::log::{EVENTS, instance_name};

/// Fields with counters that clients compute rates of: bytes over NVLink, and over PCIe.
const COUNTERS: [u32; 6] = [
    field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
    field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
    field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_TX,
    field_id::NVML_FI_DEV_NVLINK_THROUGHPUT_RAW_RX,
    field_id::NVML_FI_DEV_PCIE_COUNT_TX_BYTES,
    field_id::NVML_FI_DEV_PCIE_COUNT_RX_BYTES,
];

/// Records the calls of this process.
pub(super) struct Recorder {
    library: DriverLibrary,
    log: Mutex<Log>,
}

/// The recorder, if this library was copied to record another one.
pub(super) fn active() -> Option<&'static Recorder> {
    static RECORDER: OnceLock<Option<Recorder>> = OnceLock::new();
    let start = || {
        let image = library_path()?;
        let path = fs::read_to_string(image.parent().map(Path::to_owned)?.join(RECORDED_LIBRARY));
        let library = DriverLibrary::open(&path.ok()?)?;
        Some(Recorder { library, log: Mutex::default() })
    };
    RECORDER.get_or_init(start).as_ref()
}

/// What was recorded so far, as tables of a scenario file.
pub(in crate::abi) fn recorded() -> Option<String> {
    let recorder = active()?;
    let missing = recorder.library.missing(FUNCTIONS);
    let missing: Vec<String> = missing.iter().map(|name| format!("    \"{name}\",\n")).collect();
    let answers = recorder.log().recording(clock::now(None).real).to_toml();
    Some(format!("[driver]\nmissing = [\n{}]\n{answers}", missing.concat()))
}

impl Recorder {
    /// Calls the function of the driver's library.
    pub(super) fn call(&self, function: &'static str, words: &[usize]) -> nvmlReturn_t {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        match function {
            "nvmlDeviceGetFieldValues" => self.fields(function, words),
            "nvmlGpmMetricsGet" => self.gpm_metrics(function, words),
            "nvmlDeviceGetSamples" => self.samples(function, words),
            "nvmlDeviceGetProcessUtilization" => {
                self.process_rows(function, words, &OLD_ROW, [word(1), word(2)], word(3))
            }
            "nvmlDeviceGetProcessesUtilizationInfo" => {
                let list = memory::UtilizationRequest::at(word(1));
                let places = [list.rows, list.count];
                self.process_rows(function, words, &NEW_ROW, places, list.cursor)
            }
            "nvmlEventSetWait" | "nvmlEventSetWait_v2" => self.event(function, words),
            _ => self.generic(function, words),
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self, handle: usize) -> String {
        self.log().name(handle)
    }

    /// Calls the function, as one that may hang.
    fn forward(&self, target: &str, key: &str, function: &'static str, words: &[usize]) -> u32 {
        let call = self.log().begin(target, key, clock::now(None).real);
        let code = self.library.call(function, words);
        self.log().end(call);
        code
    }

    fn generic(&self, function: &'static str, words: &[usize]) -> nvmlReturn_t {
        let Some(request) = Request::new(function, words, |handle| self.name(handle)) else {
            return self.library.call(function, words);
        };
        let code = self.forward(&request.target, &request.key, function, words);
        let is_count = function == RETIRED_PAGES && code == ReturnCode::INSUFFICIENT_SIZE.0;
        let answer = match code {
            0 => request.read(|handle| self.log().learn(handle, &request.target, &request.key)),
            _ if is_count => request.read(|handle| self.name(handle)),
            // The caller has too small a buffer, and calls again.
            code if code == ReturnCode::INSUFFICIENT_SIZE.0 => return code,
            code => Answer::Error(code),
        };
        self.log().record(&request.target, &request.key, answer);
        if code == 0 {
            self.log().track_sample(function, words, &request.target);
        }
        code
    }

    fn fields(&self, function: &'static str, words: &[usize]) -> nvmlReturn_t {
        let [device, count, values] = *words else { return ReturnCode::INVALID_ARGUMENT.0 };
        let target = self.name(device);
        let code = self.forward(&target, function, function, words);
        if code != 0 {
            self.log().record(&target, function, Answer::Error(code));
            return code;
        }
        // SAFETY: the caller passes that many structs, which the driver has filled.
        let values =
            unsafe { std::slice::from_raw_parts(pointer::<nvmlFieldValue_t>(values), count) };
        let mut log = self.log();
        log.forget(&target, function);
        for value in values {
            let key = field_key(value.fieldId, value.scopeId);
            match field(value) {
                Answer::Values(values) if COUNTERS.contains(&value.fieldId) => {
                    log.record_counter(&target, &key, values, value.timestamp);
                }
                answer
                @ (Answer::Values(_) | Answer::Rows(_) | Answer::Error(_) | Answer::Hang) => {
                    log.record(&target, &key, answer);
                }
            }
        }
        code
    }

    fn gpm_metrics(&self, function: &'static str, words: &[usize]) -> nvmlReturn_t {
        let request = words.first().copied().unwrap_or_default();
        let Some((samples, metrics)) = gpm::request_at(pointer(request)) else {
            return self.library.call(function, words);
        };
        let target = self.log().sample_target(samples.1);
        let code = self.forward(&target, function, function, words);
        let mut log = self.log();
        if code != 0 {
            log.record(&target, function, Answer::Error(code));
            return code;
        }
        log.forget(&target, function);
        for metric in metrics {
            let answer = match metric.nvmlReturn {
                0 => Answer::Values(vec![Value::Float(metric.value)]),
                code => Answer::Error(code),
            };
            log.record(&target, &gpm_key(metric.metricId), answer);
        }
        code
    }

    fn samples(&self, function: &'static str, words: &[usize]) -> nvmlReturn_t {
        let [device, _, cursor, _, count, rows] = *words else {
            return ReturnCode::INVALID_ARGUMENT.0;
        };
        let target = self.name(device);
        let code = self.forward(&target, function, function, words);
        let cursor_us = u64::try_from(cursor).unwrap_or_default();
        let mut log = self.log();
        match code {
            0 => {
                // SAFETY: the driver has written the number of rows.
                let rows = read_rows(rows, unsafe { memory::read_u32(count) }, SAMPLE);
                let (percents, newest_us) = recorded_samples(&rows, cursor_us);
                log.newest_us.extend(newest_us.map(|newest_us| (target.clone(), newest_us)));
                if cursor_us > 0 && !percents.is_empty() || !log.has(&target, function) {
                    log.record(&target, function, Answer::Rows(percents));
                }
            }
            // There is no new sample, or the caller has too small a buffer.
            code if [ReturnCode::NOT_FOUND.0, ReturnCode::INSUFFICIENT_SIZE.0].contains(&code) => {
                log.record_first(&target, function, Answer::Rows(Vec::new()));
            }
            code => log.record(&target, function, Answer::Error(code)),
        }
        code
    }

    /// `places` are the addresses of the rows and of their number.
    fn process_rows(
        &self,
        function: &'static str,
        words: &[usize],
        format: &RowFormat,
        places: [usize; 2],
        cursor: usize,
    ) -> nvmlReturn_t {
        let target = self.name(words.first().copied().unwrap_or_default());
        let code = self.forward(&target, function, function, words);
        let cursor_us = u64::try_from(cursor).unwrap_or_default();
        let mut log = self.log();
        let rows = match code {
            0 => {
                let [rows, count] = places;
                // SAFETY: the driver has written the number of rows.
                let rows = read_rows(rows, unsafe { memory::read_u32(count) }, format.layout);
                let newest_us = log.newest_us.get(&target).copied();
                let newest_us = newest_us.unwrap_or_else(|| clock::now(None).wall);
                Answer::Rows(recorded_rows(&rows, format, cursor_us, newest_us))
            }
            code if code == ReturnCode::NOT_FOUND.0 => Answer::Rows(Vec::new()),
            code if code == ReturnCode::INSUFFICIENT_SIZE.0 => return code,
            code => Answer::Error(code),
        };
        // Without a cursor, all rows of the buffer are returned, also old ones.
        if cursor_us > 0 || matches!(rows, Answer::Error(_)) {
            log.record(&target, function, rows);
        } else {
            log.record_first(&target, function, rows);
        }
        code
    }

    fn event(&self, function: &'static str, words: &[usize]) -> nvmlReturn_t {
        let code = self.library.call(function, words);
        let event: *const nvmlEventData_t = pointer(words.get(1).copied().unwrap_or_default());
        if code == 0 && !event.is_null() {
            // SAFETY: the driver has filled the caller's struct.
            let event = unsafe { event.read() };
            let row = [event.eventType, event.eventData].map(u64::cast_signed);
            let instances = [event.gpuInstanceId, event.computeInstanceId].map(i64::from);
            self.log().add_event(handle(event.device), [row, instances].concat());
        }
        code
    }
}

fn handle(device: nvmlDevice_t) -> usize {
    device.expose_provenance()
}

/// The key of a field.
pub(super) fn field_key(id: u32, scope: u32) -> String {
    match scope {
        0 => format!("field {id}"),
        u32::MAX => format!("field {id} of all links"),
        scope => format!("field {id} of link {scope}"),
    }
}

/// The key of a GPM metric.
pub(super) fn gpm_key(id: u32) -> String {
    format!("gpm {id}")
}

/// The value of a field. Clients ignore an unsigned number with all bits set.
fn field(field: &nvmlFieldValue_t) -> Answer {
    if field.nvmlReturn != 0 {
        return Answer::Error(field.nvmlReturn);
    }
    // SAFETY: every bit pattern is valid for this member of the union.
    let number = unsafe { field.value.ullVal };
    let low = u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    let value = match field.valueType {
        0 => Value::Float(f64::from_bits(number)),
        1 if low == u32::MAX => Value::Text(ALL_BITS.to_owned()),
        1 => Value::Number(i64::from(low)),
        2 | 3 if number == u64::MAX => Value::Text(ALL_BITS.to_owned()),
        2..=4 => Value::Number(number.cast_signed()),
        5 => Value::Number(i64::from(low.cast_signed())),
        6 => Value::Number(i64::from(low & u32::from(u16::MAX))),
        kind => Value::Text(format!("type {kind}")),
    };
    Answer::Values(vec![value])
}
