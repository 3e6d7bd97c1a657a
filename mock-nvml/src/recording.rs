//! A recording: what a driver returned, by function and device.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::return_code::ReturnCode;

/// The target of functions that take no device.
pub(crate) const NODE: &str = "node";

/// The number of an unsigned value with all bits set.
pub(crate) const ALL_BITS: &str = "all bits set";

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// An integer; -1 if it has 64 bits and all of them are set.
    Number(i64),
    /// A GPM metric.
    Float(f64),
    /// A text, the target of a handle, or bytes in hexadecimal digits.
    Text(String),
}

/// What a function returned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// An `nvmlReturn_t` other than success.
    Error(u32),
    /// The call did not return.
    Hang,
    /// Success: the values that were written, in the order of the parameters and members.
    Values(Vec<Value>),
    /// Success: a list.
    Rows(Vec<Vec<i64>>),
}

/// The answers of a target, by function and input values.
pub(crate) type Answers = BTreeMap<String, Answer>;

/// The answers of a driver.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Recording {
    /// By target: `node`, `gpu 0`, `mig 0/1` (GPU and index of the MIG device), `instance 0/3` (GPU and GPU
    /// instance).
    pub(crate) targets: BTreeMap<String, Answers>,
}

impl Recording {
    /// The answer for a target.
    pub(crate) fn answer(&self, target: &str, key: &str) -> Option<&Answer> {
        self.targets.get(target)?.get(key)
    }

    /// The PCI bus ids of the GPUs.
    pub(crate) fn pci_bus_ids(&self) -> impl Iterator<Item = &str> {
        self.targets.values().filter_map(|answers| {
            let Answer::Values(values) = answers.get("nvmlDeviceGetPciInfo_v3")? else {
                return None;
            };
            let Some(Value::Text(id)) = values.last() else { return None };
            Some(id.as_str())
        })
    }

    /// The tables `[answers.…]` of a scenario file.
    pub(crate) fn to_toml(&self) -> String {
        let mut text = String::new();
        for (target, answers) in &self.targets {
            let _ = writeln!(text, "\n[answers.{}]", key_text(target));
            for (key, answer) in answers {
                let _ = writeln!(text, "{} = {}", key_text(key), answer.to_toml());
            }
        }
        text
    }
}

impl Answer {
    fn to_toml(&self) -> String {
        match self {
            Self::Error(code) => match ReturnCode(*code).name() {
                Some(name) => format!("{{ error = \"{name}\" }}"),
                None => format!("{{ error = {code} }}"),
            },
            Self::Hang => "{ hang = true }".to_owned(),
            Self::Values(values) => match values.as_slice() {
                [] => "true".to_owned(),
                [one] => one.to_toml(),
                many => array(many.iter().map(Value::to_toml)),
            },
            Self::Rows(rows) => {
                array(rows.iter().map(|row| array(row.iter().map(ToString::to_string))))
            }
        }
    }
}

impl Value {
    fn to_toml(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            // With a decimal point, also for whole numbers.
            Self::Float(number) if number.is_finite() => format!("{number:?}"),
            Self::Float(number) => number.to_string().to_lowercase(),
            Self::Text(text) => quoted(text),
        }
    }
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<_>>().join(", "))
}

fn key_text(key: &str) -> String {
    let is_bare = key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { key.to_owned() } else { quoted(key) }
}

/// A basic string of TOML.
fn quoted(text: &str) -> String {
    let escaped = text.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}
