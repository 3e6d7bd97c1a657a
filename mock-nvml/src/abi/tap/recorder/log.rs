//! What was recorded so far, and the names of handles.

use std::collections::{BTreeMap, HashMap};

use crate::{
    recording::{Answer, Answers, Recording, Value},
    return_code::ReturnCode,
};

/// A call that has not returned after this time hangs, in seconds.
const HANG: f64 = 2.0;

/// The answers so far.
#[derive(Default)]
pub(super) struct Log {
    targets: BTreeMap<String, Answers>,
    /// Names of the handles of devices and GPU instances.
    names: HashMap<usize, String>,
    /// The target of each GPM sample.
    samples: HashMap<usize, String>,
    /// Calls that have not returned: target, key and begin.
    pending: HashMap<u64, (String, String, f64)>,
    calls: u64,
    /// The last values of counters and their stamps, µs, by target and key.
    counters: HashMap<(String, String), (i64, i64)>,
    /// Stamp of the newest utilization sample of each GPU, µs.
    pub(super) newest_us: HashMap<String, u64>,
}

impl Log {
    /// The name of a handle.
    pub(super) fn name(&self, handle: usize) -> String {
        self.names.get(&handle).cloned().unwrap_or_else(|| "unknown".to_owned())
    }

    /// The name of a handle that the call with this key returned for `target`.
    pub(super) fn learn(&mut self, handle: usize, target: &str, key: &str) -> String {
        let (function, input) = key.split_once(' ').unwrap_or((key, ""));
        let gpu = target.strip_prefix("gpu ").unwrap_or(target);
        let name = match function {
            "nvmlDeviceGetHandleByIndex_v2" => format!("gpu {input}"),
            "nvmlDeviceGetMigDeviceHandleByIndex" => format!("mig {gpu}/{input}"),
            "nvmlDeviceGetGpuInstanceById" => instance_name(target, input),
            _ => return self.name(handle),
        };
        self.names.insert(handle, name.clone());
        name
    }

    /// Remembers the target of a GPM sample that was taken.
    pub(super) fn track_sample(&mut self, function: &str, words: &[usize], target: &str) {
        let (sample, name) = match (function, words) {
            ("nvmlGpmSampleGet", [_, sample]) => (*sample, target.to_owned()),
            ("nvmlGpmMigSampleGet", [_, id, sample]) => {
                (*sample, instance_name(target, &id.to_string()))
            }
            _ => return,
        };
        self.samples.insert(sample, name);
    }

    pub(super) fn sample_target(&self, sample: usize) -> String {
        self.samples.get(&sample).cloned().unwrap_or_default()
    }

    /// A call begins, at `now` in real seconds.
    pub(super) fn begin(&mut self, target: &str, key: &str, now: f64) -> u64 {
        self.calls += 1;
        self.pending.insert(self.calls, (target.to_owned(), key.to_owned(), now));
        self.calls
    }

    pub(super) fn end(&mut self, call: u64) {
        self.pending.remove(&call);
    }

    pub(super) fn has(&self, target: &str, key: &str) -> bool {
        self.targets.get(target).is_some_and(|answers| answers.contains_key(key))
    }

    pub(super) fn record(&mut self, target: &str, key: &str, answer: Answer) {
        let answers = match self.targets.get_mut(target) {
            Some(answers) => answers,
            None => self.targets.entry(target.to_owned()).or_default(),
        };
        match answers.get_mut(key) {
            Some(before) => *before = answer,
            None => drop(answers.insert(key.to_owned(), answer)),
        }
    }

    /// Records the value of a counter, with its increase since the last one and the time between both in µs, if it
    /// has increased.
    pub(super) fn record_counter(
        &mut self,
        target: &str,
        key: &str,
        mut values: Vec<Value>,
        stamp_us: i64,
    ) {
        if let [Value::Number(now)] = *values {
            let name = (target.to_owned(), key.to_owned());
            let before = self.counters.insert(name, (now, stamp_us));
            let Some((value, before_us)) = before else {
                return self.record(target, key, Answer::Values(values));
            };
            if stamp_us == before_us {
                // It was read twice.
                return;
            }
            if now > value && stamp_us > before_us {
                values.extend([now - value, stamp_us - before_us].map(Value::Number));
            }
        }
        self.record(target, key, Answer::Values(values));
    }

    /// Records an answer unless there is one.
    pub(super) fn record_first(&mut self, target: &str, key: &str, answer: Answer) {
        if !self.has(target, key) {
            self.record(target, key, answer);
        }
    }

    pub(super) fn forget(&mut self, target: &str, key: &str) {
        self.targets.get_mut(target).and_then(|answers| answers.remove(key));
    }

    /// Adds an event: type, data, GPU instance and compute instance.
    pub(super) fn add_event(&mut self, device: usize, event: Vec<i64>) {
        let answers = self.targets.entry(self.name(device)).or_default();
        let events = answers.entry(EVENTS.to_owned()).or_insert(Answer::Rows(Vec::new()));
        if let Answer::Rows(rows) = events {
            rows.push(event);
        }
    }

    /// The answers up to `now`, in real seconds.
    pub(super) fn recording(&self, now: f64) -> Recording {
        let mut targets = self.targets.clone();
        for (target, key, since) in self.pending.values() {
            if now - since > HANG || !self.has(target, key) {
                targets.entry(target.clone()).or_default().insert(key.clone(), Answer::Hang);
            }
        }
        targets.remove("unknown");
        // What the GPUs were asked before they were lost or partitioned is not part of the node.
        let is_current = |name: &String| {
            let returns =
                |answer: &Answer| *answer == Answer::Values(vec![Value::Text(name.clone())]);
            !name.starts_with("mig ")
                || self.targets.values().any(|answers| answers.values().any(returns))
        };
        targets.retain(|name, _| is_current(name));
        // Links that a board does not have.
        for answers in targets.values_mut() {
            let not_supported = Answer::Error(ReturnCode::NOT_SUPPORTED.0);
            answers.retain(|key, answer| !key.contains(" of link ") || *answer != not_supported);
        }
        Recording { targets }
    }
}

/// The key of the events of a device.
pub(in crate::abi::tap) const EVENTS: &str = "events";

/// The name of a GPU instance of a GPU.
pub(in crate::abi::tap) fn instance_name(gpu: &str, id: &str) -> String {
    format!("instance {}/{id}", gpu.strip_prefix("gpu ").unwrap_or(gpu))
}
