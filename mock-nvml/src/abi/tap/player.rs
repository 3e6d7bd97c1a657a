//! Plays a recording: returns what was recorded, at the time of the recording.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use nvml_wrapper_sys::bindings::{nvmlEventData_t, nvmlFieldValue_t, nvmlReturn_t, nvmlValue_t};

use super::{
    memory, pointer,
    recorder::{EVENTS, field_key, gpm_key, instance_name},
    request::{Request, write_rows},
    signature::{MEMORY_LIMITS, RETIRED_PAGES},
    utilization::{NEW_ROW, OLD_ROW, RowFormat, SAMPLE, last_busy_us, played_rows, played_samples},
};
use crate::{
    abi::gpm,
    clock,
    numeric::float_i64,
    recording::{Answer, Recording, Value},
    return_code::{NvmlResult, ReturnCode},
    world::World,
};

/// How often a hung call checks whether it still hangs.
const HANG_POLL: Duration = Duration::from_millis(20);
/// Calls within this time are of one reading, µs.
const ONE_READING_US: u64 = 50_000;
/// Distance of two handles.
const HANDLE: usize = 16;
/// `NVML_VALUE_TYPE_UNSIGNED_INT`.
const UNSIGNED_INT: u32 = 1;
/// An event: its device, type, data, GPU instance and compute instance.
type Event = (String, Vec<i64>);
/// State of the player.
#[derive(Default)]
pub(super) struct Player {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The names of handles, by position.
    handles: Vec<String>,
    /// The target of each GPM sample.
    samples: HashMap<usize, String>,
    /// The events that each event set has not delivered.
    events: HashMap<usize, VecDeque<Event>>,
    /// Stamp of the last busy utilization sample that was returned of each GPU, µs.
    busy_us: HashMap<String, u64>,
    /// Counters that increase, by target and key.
    counters: HashMap<(String, String), CountedSteps>,
    /// Number of samples and event sets that were created.
    created: usize,
}

/// How far a counter has been counted.
struct CountedSteps {
    /// Increases since the recording; -1 at the first call, so that the second one returns the recorded value.
    steps: i64,
    /// Stamp of the counter, and time of the call, µs.
    stamp_us: u64,
    called_us: u64,
}

impl State {
    /// Counts a counter on that increases once in `period_us`: how many increases it has had since the recording,
    /// and its stamp. Two readings are a whole number of periods apart, so that the rate is that of the recording.
    fn step(&mut self, target: &str, key: &str, period_us: u64) -> (i64, u64) {
        let now_us = clock::now(None).wall;
        let first = || CountedSteps { steps: -1, stamp_us: now_us, called_us: now_us };
        let name = (target.to_owned(), key.to_owned());
        let counted = self.counters.entry(name).or_insert_with(first);
        let since_us = now_us.saturating_sub(counted.called_us);
        if since_us >= ONE_READING_US {
            let periods = ((since_us + period_us / 2) / period_us).max(1);
            counted.steps += i64::try_from(periods).unwrap_or_default();
            counted.stamp_us += periods * period_us;
            counted.called_us = now_us;
        }
        (counted.steps, counted.stamp_us)
    }
}

/// A counter: its value and its increase, and the time of the increase in µs.
fn counter(answer: Option<&Answer>) -> Option<([i64; 2], u64)> {
    let Answer::Values(values) = answer? else { return None };
    let [Value::Number(value), Value::Number(increase), Value::Number(period)] = **values else {
        return None;
    };
    u64::try_from(period)
        .ok()
        .filter(|period| *period > 0)
        .map(|period| ([value, increase], period))
}

/// The player of this process.
pub(super) fn player() -> &'static Player {
    static PLAYER: OnceLock<Player> = OnceLock::new();
    PLAYER.get_or_init(Player::default)
}

impl Player {
    /// Answers a call.
    pub(super) fn call(
        &self,
        world: &World,
        recording: &Recording,
        function: &'static str,
        words: &[usize],
    ) -> nvmlReturn_t {
        let argument = |at: usize| words.get(at).copied().unwrap_or_default();
        let result = match function {
            "nvmlDeviceGetFieldValues" => self.fields(world, recording, words),
            "nvmlGpmSampleFree" => {
                self.state().samples.remove(&argument(0));
                Ok(())
            }
            "nvmlGpmMetricsGet" => self.gpm_metrics(world, recording, argument(0)),
            "nvmlGpmSampleAlloc" | "nvmlEventSetCreate" => self.create(argument(0)),
            "nvmlEventSetFree" => {
                self.state().events.remove(&argument(0));
                Ok(())
            }
            "nvmlEventSetWait" | "nvmlEventSetWait_v2" => {
                self.wait(argument(0), argument(1), argument(2))
            }
            "nvmlDeviceGetSamples" => self.samples(world, recording, words),
            "nvmlDeviceGetProcessUtilization" => {
                let places = [argument(1), argument(2)];
                self.process_rows(
                    (world, recording),
                    (function, argument(0)),
                    &OLD_ROW,
                    places,
                    argument(3),
                )
            }
            "nvmlDeviceGetProcessesUtilizationInfo" => {
                let list = memory::UtilizationRequest::at(argument(1));
                let call = (function, argument(0));
                let places = [list.rows, list.count];
                self.process_rows((world, recording), call, &NEW_ROW, places, list.cursor)
            }
            _ => self.generic(world, recording, function, words),
        };
        result.err().map_or(0, |code| code.0)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of a handle.
    fn name(&self, handle: usize) -> String {
        let at = (handle / HANDLE).checked_sub(1);
        let name = at.and_then(|at| self.state().handles.get(at).cloned());
        name.unwrap_or_else(|| "unknown".to_owned())
    }

    /// The handle of a name.
    fn handle(&self, name: &str) -> usize {
        let mut state = self.state();
        let at = state.handles.iter().position(|known| known == name).unwrap_or_else(|| {
            state.handles.push(name.to_owned());
            state.handles.len() - 1
        });
        (at + 1) * HANDLE
    }

    fn generic(
        &self,
        world: &World,
        recording: &Recording,
        function: &'static str,
        words: &[usize],
    ) -> NvmlResult<()> {
        let request = Request::new(function, words, |handle| self.name(handle));
        let request = request.ok_or(ReturnCode::FUNCTION_NOT_FOUND)?;
        let answer = match answer(world, recording, &request.target, &request.key) {
            Err(_)
                if matches!(function, "nvmlInit_v2" | "nvmlShutdown")
                    && recording.answer(&request.target, &request.key).is_none() =>
            {
                return Ok(());
            }
            Err(_) if function == MEMORY_LIMITS && knows_limits(recording, &request) => {
                own_limits(recording, &request).cloned().ok_or(ReturnCode::NOT_FOUND)?
            }
            answer => answer?,
        };
        request.write(&answer, |name| self.handle(name))?;
        match (function, words) {
            ("nvmlDeviceRegisterEvents", [_, _, set]) => {
                self.register(recording, &request.target, *set);
            }
            ("nvmlGpmSampleGet", [_, sample]) => {
                self.state().samples.insert(*sample, request.target);
            }
            ("nvmlGpmMigSampleGet", [_, id, sample]) => {
                let name = instance_name(&request.target, &id.to_string());
                self.state().samples.insert(*sample, name);
            }
            (RETIRED_PAGES, _) if answer != Answer::Values(vec![Value::Number(0)]) => {
                return Err(ReturnCode::INSUFFICIENT_SIZE);
            }
            _ => {}
        }
        Ok(())
    }

    /// Writes a new handle of a sample or event set.
    fn create(&self, address: usize) -> NvmlResult<()> {
        let mut state = self.state();
        state.created += 1;
        let handle = state.created * HANDLE;
        // SAFETY: the caller passes null or a place for a handle.
        let place = unsafe { memory::bytes(address, size_of::<usize>()) };
        let place = place.ok_or(ReturnCode::INVALID_ARGUMENT)?;
        place.copy_from_slice(&handle.to_ne_bytes());
        Ok(())
    }

    fn fields(&self, world: &World, recording: &Recording, words: &[usize]) -> NvmlResult<()> {
        let [device, count, values] = *words else { return Err(ReturnCode::INVALID_ARGUMENT) };
        let target = self.name(device);
        if recording.answer(&target, "nvmlDeviceGetFieldValues").is_some() {
            answer(world, recording, &target, "nvmlDeviceGetFieldValues")?;
        }
        // SAFETY: the caller passes that many structs, not aliased during the call.
        let values =
            unsafe { std::slice::from_raw_parts_mut(pointer::<nvmlFieldValue_t>(values), count) };
        for value in values {
            let key = field_key(value.fieldId, value.scopeId);
            let answer = recording.answer(&target, &key);
            fill_field(value, answer);
            if let Some(([number, increase], period_us)) = counter(answer) {
                let (steps, stamp_us) = self.state().step(&target, &key, period_us);
                value.value =
                    nvmlValue_t { sllVal: number.wrapping_add(steps.wrapping_mul(increase)) };
                value.timestamp = stamp_us.cast_signed();
            }
        }
        Ok(())
    }

    fn gpm_metrics(&self, world: &World, recording: &Recording, address: usize) -> NvmlResult<()> {
        let (samples, metrics) =
            gpm::request_at(pointer(address)).ok_or(ReturnCode::INVALID_ARGUMENT)?;
        let target = self.state().samples.get(&samples.1).cloned();
        let target = target.ok_or(ReturnCode::INVALID_ARGUMENT)?;
        if recording.answer(&target, "nvmlGpmMetricsGet").is_some() {
            answer(world, recording, &target, "nvmlGpmMetricsGet")?;
        }
        for metric in metrics {
            let answer = recording.answer(&target, &gpm_key(metric.metricId));
            (metric.nvmlReturn, metric.value) = match answer {
                Some(Answer::Values(values)) => (0, values.first().map_or(0.0, float)),
                Some(Answer::Error(code)) => (*code, 0.0),
                Some(Answer::Hang | Answer::Rows(_)) | None => (ReturnCode::NOT_SUPPORTED.0, 0.0),
            };
        }
        Ok(())
    }

    /// Delivers the recorded events of a device to an event set.
    fn register(&self, recording: &Recording, target: &str, set: usize) {
        let Some(Answer::Rows(events)) = recording.answer(target, EVENTS) else { return };
        let events = events.iter().map(|event| (target.to_owned(), event.clone()));
        self.state().events.entry(set).or_default().extend(events);
    }

    fn wait(&self, set: usize, data: usize, timeout_ms: usize) -> NvmlResult<()> {
        let next = self.state().events.get_mut(&set).and_then(VecDeque::pop_front);
        let Some((target, event)) = next else {
            clock::sleep(Duration::from_millis(u64::try_from(timeout_ms).unwrap_or_default()));
            return Err(ReturnCode::TIMEOUT);
        };
        let number = |at: usize| event.get(at).copied().unwrap_or(-1).cast_unsigned();
        let instance = |at: usize| u32::try_from(number(at)).unwrap_or(u32::MAX);
        let data: *mut nvmlEventData_t = pointer(data);
        if data.is_null() {
            return Err(ReturnCode::INVALID_ARGUMENT);
        }
        let filled = nvmlEventData_t {
            device: pointer(self.handle(&target)),
            eventType: number(0),
            eventData: number(1),
            gpuInstanceId: instance(2),
            computeInstanceId: instance(3),
        };
        // SAFETY: not null, so the caller's struct.
        unsafe { data.write(filled) };
        Ok(())
    }

    fn samples(&self, world: &World, recording: &Recording, words: &[usize]) -> NvmlResult<()> {
        let [device, _, cursor, kind, count, rows] = *words else {
            return Err(ReturnCode::INVALID_ARGUMENT);
        };
        let target = self.name(device);
        let answer = answer(world, recording, &target, "nvmlDeviceGetSamples")?;
        let Answer::Rows(recorded) = answer else { return Err(ReturnCode::NOT_FOUND) };
        let percents: Vec<i64> = recorded.iter().flatten().copied().collect();
        let cursor_us = u64::try_from(cursor).unwrap_or_default();
        let samples = played_samples(&percents, cursor_us, clock::now(None).wall);
        if let Some(busy_us) = last_busy_us(&samples) {
            self.state().busy_us.insert(target, busy_us);
        } else {
            return Err(ReturnCode::NOT_FOUND);
        }
        // SAFETY: the caller passes null or a place for the type of the values.
        unsafe { memory::write_u32(kind, UNSIGNED_INT) };
        // SAFETY: the caller passes its capacity.
        let capacity = unsafe { memory::read_u32(count) };
        // SAFETY: the caller's array has this capacity.
        unsafe { write_rows(count, capacity, rows, SAMPLE, &samples) }
    }

    /// `call` is the function and the handle, `places` are the addresses of the rows and of their number.
    fn process_rows(
        &self,
        (world, recording): (&World, &Recording),
        (function, device): (&'static str, usize),
        format: &RowFormat,
        [rows, count]: [usize; 2],
        cursor: usize,
    ) -> NvmlResult<()> {
        let target = self.name(device);
        let answer = answer(world, recording, &target, function)?;
        let Answer::Rows(recorded) = answer else { return Err(ReturnCode::NOT_FOUND) };
        let busy_us = self.state().busy_us.get(&target).copied();
        let busy_us = busy_us.unwrap_or_else(|| clock::now(None).wall);
        let cursor_us = u64::try_from(cursor).unwrap_or_default();
        let played = played_rows(&recorded, format, cursor_us, busy_us);
        if played.is_empty() {
            return Err(ReturnCode::NOT_FOUND);
        }
        // SAFETY: the caller passes its capacity.
        let capacity = unsafe { memory::read_u32(count) };
        // SAFETY: the caller's array has this capacity.
        unsafe { write_rows(count, capacity, rows, format.layout, &played) }
    }
}

/// The recorded answer. A call that hung hangs until the scenario changes. What was not recorded is not
/// supported.
fn answer(world: &World, recording: &Recording, target: &str, key: &str) -> NvmlResult<Answer> {
    let mut found = recording.answer(target, key).cloned();
    while found == Some(Answer::Hang) {
        clock::sleep(HANG_POLL);
        found = world.recording().and_then(|now| now.answer(target, key).cloned());
    }
    match found {
        Some(Answer::Error(code)) => Err(ReturnCode(code)),
        Some(answer) => Ok(answer),
        None => Err(ReturnCode::NOT_SUPPORTED),
    }
}

/// Whether the limits of another cgroup were recorded, and not those of this one.
fn knows_limits(recording: &Recording, request: &Request) -> bool {
    let answers = recording.targets.get(&request.target);
    let mut keys = answers.into_iter().flatten().map(|(key, _)| key);
    recording.answer(&request.target, &request.key).is_none()
        && keys.any(|key| key.starts_with(MEMORY_LIMITS))
}

/// The limits of the cgroups of the recording program, which has others than the one that asks now: those of a
/// path that names no container, for such a path.
fn own_limits<'a>(recording: &'a Recording, request: &Request) -> Option<&'a Answer> {
    let names_container =
        |key: &str| key.split(|c: char| !c.is_ascii_hexdigit()).any(|part| part.len() >= 64);
    let answers = recording.targets.get(&request.target)?;
    let mut own = answers
        .iter()
        .filter(|(key, _)| key.starts_with(MEMORY_LIMITS) && !names_container(key))
        .map(|(_, answer)| answer);
    own.find(|answer| matches!(answer, Answer::Values(_)) && !names_container(&request.key))
}

fn float(value: &Value) -> f64 {
    match value {
        Value::Float(number) => *number,
        Value::Number(number) => float_i64(*number),
        Value::Text(_) => f64::NAN,
    }
}

/// Writes a field: a whole number as 64 bits, without or with a sign.
fn fill_field(field: &mut nvmlFieldValue_t, answer: Option<&Answer>) {
    field.timestamp = clock::now(None).wall.cast_signed();
    field.latencyUsec = 1;
    let number = |number: i64| nvmlValue_t { sllVal: number };
    let value = match answer {
        Some(Answer::Values(values)) => Ok(values.first()),
        Some(Answer::Error(code)) => Err(*code),
        Some(Answer::Hang | Answer::Rows(_)) | None => Err(ReturnCode::NOT_SUPPORTED.0),
    };
    field.nvmlReturn = value.err().unwrap_or_default();
    (field.valueType, field.value) = match value {
        Ok(Some(Value::Float(float))) => (0, nvmlValue_t { dVal: *float }),
        Ok(Some(Value::Number(negative @ ..0))) => (4, number(*negative)),
        Ok(Some(Value::Number(whole))) => (3, number(*whole)),
        Ok(Some(Value::Text(text))) => match text.strip_prefix("type ").map(str::parse) {
            Some(kind) => (kind.unwrap_or(u32::MAX), number(0)),
            None => (3, number(-1)),
        },
        Ok(None) | Err(_) => (0, number(0)),
    };
}
