//! Replaces names of a node, each text by one other text, so that relations survive.

use std::collections::{BTreeMap, BTreeSet};

use super::toml::quoted;
use crate::policy::is_mps_server;

/// Originals of at least this length are replaced wherever they occur, shorter ones as whole words.
const LONG: usize = 16;

/// The replacements so far.
#[derive(Debug, Default)]
pub struct Names {
    /// Names are not replaced.
    keeps: bool,
    /// Names that are not replaced, because the exporter knows them.
    kept: BTreeSet<String>,
    by_original: BTreeMap<String, String>,
    /// Number of replacements, by prefix.
    counts: BTreeMap<&'static str, usize>,
}

impl Names {
    /// Replaces all names but `kept`; with `keeps`, none.
    #[must_use]
    pub fn new(keeps: bool, kept: impl IntoIterator<Item = String>) -> Self {
        Self { keeps, kept: kept.into_iter().collect(), ..Self::default() }
    }

    /// The originals and their replacements.
    pub fn replaced(&self) -> impl Iterator<Item = (&str, &str)> {
        self.by_original.iter().map(|(original, replaced)| (original.as_str(), replaced.as_str()))
    }

    fn replace(
        &mut self,
        original: &str,
        prefix: &'static str,
        new: impl FnOnce(usize) -> String,
    ) -> String {
        if self.keeps || original.is_empty() || self.kept.contains(original) {
            return original.to_owned();
        }
        if let Some(replaced) = self.by_original.get(original) {
            return replaced.clone();
        }
        let count = self.counts.entry(prefix).or_default();
        *count += 1;
        let replaced = new(*count);
        self.by_original.insert(original.to_owned(), replaced.clone());
        replaced
    }

    fn numbered(&mut self, original: &str, prefix: &'static str) -> String {
        self.replace(original, prefix, |n| format!("{prefix}-{n}"))
    }

    /// The name of a node.
    pub fn node(&mut self, name: &str) -> String {
        self.numbered(name, "node")
    }

    /// A namespace.
    pub fn namespace(&mut self, name: &str) -> String {
        self.numbered(name, "namespace")
    }

    /// The name of a pod.
    pub fn pod(&mut self, name: &str) -> String {
        self.numbered(name, "pod")
    }

    /// The name of a container.
    pub fn container(&mut self, name: &str) -> String {
        self.numbered(name, "container")
    }

    /// The name of a process.
    pub fn process(&mut self, name: &str) -> String {
        if is_mps_server(name) {
            return name.to_owned();
        }
        self.numbered(name, "process")
    }

    /// The name of a resource claim.
    pub fn claim(&mut self, name: &str) -> String {
        self.numbered(name, "claim")
    }

    /// The value of a label.
    pub fn label(&mut self, value: &str) -> String {
        self.numbered(value, "value")
    }

    /// The UID of a pod: as the API server has it, or as a hash. In cgroups of systemd it has underscores.
    pub fn pod_uid(&mut self, uid: &str) -> String {
        let is_hash = !uid.contains('-');
        let replaced = self.replace(uid, "uid", |n| {
            if is_hash { format!("{n:032x}") } else { format!("00000000-0000-4000-9000-{n:012x}") }
        });
        let escaped = (uid.replace('-', "_"), replaced.replace('-', "_"));
        if escaped.0 != uid && replaced != uid {
            self.by_original.insert(escaped.0, escaped.1);
        }
        replaced
    }

    /// The id of a container, hexadecimal digits.
    pub fn container_id(&mut self, id: &str) -> String {
        let width = id.len();
        self.replace(id, "container id", |n| format!("{n:0>width$x}"))
    }

    /// An exposition with the names that were replaced so far, as whole label values.
    #[must_use]
    pub fn replace_labels(&self, exposition: &str) -> String {
        let mut replaced = String::with_capacity(exposition.len());
        for (at, part) in exposition.split('"').enumerate() {
            if at > 0 {
                replaced.push('"');
            }
            replaced.push_str(self.by_original.get(part).map_or(part, String::as_str));
        }
        replaced
    }

    /// The text of a file `cgroup`, also with the ids of containers and pods that are not known otherwise.
    pub fn cgroup(&mut self, text: &str) -> String {
        for id in hexadecimal_runs(text) {
            self.container_id(&id);
        }
        for uid in uuids(text) {
            if !self.by_original.contains_key(&uid) {
                self.pod_uid(&uid.replace('_', "-"));
            }
        }
        self.replace_in(text)
    }

    /// A text with all names that were replaced so far.
    #[must_use]
    pub fn replace_in(&self, text: &str) -> String {
        if self.keeps {
            return text.to_owned();
        }
        words(text).map(|word| self.word(word)).collect()
    }

    /// A word: a name, or one that contains long names. A short number may have another meaning.
    fn word(&self, word: &str) -> String {
        let is_number = word.len() < LONG && word.bytes().all(|byte| byte.is_ascii_digit());
        match self.by_original.get(word).filter(|_| !is_number) {
            Some(replaced) => replaced.clone(),
            None => self.long_names(word),
        }
    }

    /// Replaces long names, the longest one at each place, once.
    fn long_names(&self, word: &str) -> String {
        let lengths: BTreeSet<usize> = self.by_original.keys().map(String::len).collect();
        let lengths = lengths.range(LONG..=word.len().max(LONG));
        let mut replaced = String::new();
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let name = |length: &usize| {
                let (name, after) = rest.split_at_checked(*length)?;
                Some((self.by_original.get(name)?, after))
            };
            if let Some((new, after)) = lengths.clone().rev().find_map(name) {
                replaced.push_str(new);
                rest = after;
            } else {
                replaced.push(first);
                rest = rest.get(first.len_utf8()..).unwrap_or_default();
            }
        }
        replaced
    }

    /// The answers of a driver, with other UUIDs, serial numbers and PCI bus ids.
    pub fn replace_driver(&mut self, answers: &str) -> String {
        if self.keeps {
            return answers.to_owned();
        }
        for (function, answer) in answers.lines().filter_map(|line| line.split_once(" = ")) {
            self.learn(function.trim_matches('"'), &texts(answer));
        }
        let mut replaced = String::with_capacity(answers.len());
        for line in answers.lines() {
            match line.split_once(" = ") {
                Some((function, answer)) if is_identity(function) => {
                    let key = self.key(function);
                    let answer = self.answer(function, answer);
                    replaced.extend([key.as_str(), " = ", &answer, "\n"]);
                }
                _ => replaced.extend([line, "\n"]),
            }
        }
        replaced
    }

    /// Replaces the identifiers that a function returned.
    fn learn(&mut self, function: &str, texts: &[String]) {
        let function = function.split(' ').next().unwrap_or_default();
        match (function, texts) {
            ("nvmlDeviceGetUUID", [uuid]) => {
                let kind = if uuid.starts_with("MIG-") { "MIG" } else { "GPU" };
                let group = if kind == "MIG" { "8001" } else { "8000" };
                self.replace(uuid, kind, |n| format!("{kind}-00000000-0000-4000-{group}-{n:012x}"));
            }
            ("nvmlDeviceGetSerial", [serial]) => {
                self.replace(serial, "serial", |n| format!("{:013}", 1_000_000_000_000_usize + n));
            }
            ("nvmlDeviceGetPciInfo_v3", [legacy, id]) => {
                let mut bus = 0;
                self.replace(id, "bus", |n| {
                    bus = n;
                    format!("{:08X}:{:02X}:00.0", n / 256, n % 256)
                });
                if bus > 0 {
                    self.replace(legacy, "legacy bus", |_| {
                        format!("{:04X}:{:02X}:00.0", bus / 256, bus % 256)
                    });
                }
            }
            ("nvmlDeviceGetPlatformInfo", [guid, serial]) => {
                self.identifier(guid);
                let width = serial.len();
                self.replace(serial, "chassis", |n| format!("{n:0>width$}"));
            }
            ("nvmlDeviceGetGpuFabricInfoV" | "nvmlDeviceGetGpuFabricInfo_v4", [uuid]) => {
                self.identifier(uuid);
            }
            _ => {}
        }
    }

    /// An identifier of bytes, which zeros may follow. Exported are the bytes without the zeros, or a UUID.
    fn identifier(&mut self, digits: &str) {
        let used = digits.trim_end_matches('0').len().next_multiple_of(2);
        if used == 0 {
            return;
        }
        let width = digits.len();
        let replaced = self.replace(digits, "identifier", |n| {
            let bytes = "01".repeat((used / 2).saturating_sub(1)) + &format!("{:02x}", n % 255 + 1);
            format!("{bytes:0<width$}")
        });
        if replaced == digits {
            return;
        }
        for form in [|digits: &str, used| digits.get(..used).map(str::to_owned), uuid_of] {
            if let (Some(original), Some(new)) = (form(digits, used), form(&replaced, used)) {
                self.by_original.insert(original, new);
            }
        }
    }

    /// The key of an answer, with the UUID or cgroup in it replaced.
    fn key(&mut self, key: &str) -> String {
        let input = |function: &str| key.strip_prefix(function)?.strip_suffix('"');
        if let Some(uuid) = input("\"nvmlDeviceGetHandleByUUID ") {
            return quoted(&format!("nvmlDeviceGetHandleByUUID {}", self.replace_in(uuid)));
        }
        match input("\"nvmlDeviceGetMemoryLimits_v1 ") {
            Some(path) => quoted(&format!("nvmlDeviceGetMemoryLimits_v1 {}", self.cgroup(path))),
            None => key.to_owned(),
        }
    }

    fn answer(&self, function: &str, answer: &str) -> String {
        let known = |(at, part): (usize, &str)| match self.by_original.get(part) {
            Some(new) if at % 2 == 1 && !answer.starts_with('{') => new.clone(),
            _ => part.to_owned(),
        };
        let replaced = answer.split('"').enumerate().map(known).collect::<Vec<_>>().join("\"");
        if function == "nvmlDeviceGetPciInfo_v3" {
            return with_numbers_of_bus(&replaced);
        }
        replaced
    }
}

/// 32 digits as a UUID.
fn uuid_of(digits: &str, _used: usize) -> Option<String> {
    let groups = [(0, 8), (8, 12), (12, 16), (16, 20), (20, 32)];
    let groups = groups.map(|(from, to)| digits.get(from..to));
    groups.into_iter().collect::<Option<Vec<_>>>().map(|groups| groups.join("-"))
}

/// Whether an answer has identifiers of the board.
fn is_identity(function: &str) -> bool {
    ["UUID", "Serial", "PciInfo", "PlatformInfo", "FabricInfo", "MemoryLimits"]
        .iter()
        .any(|part| function.contains(part))
}

/// PCI information with the numbers of domain, bus and device in its bus id.
fn with_numbers_of_bus(answer: &str) -> String {
    let mut parts: Vec<String> = answer.split(", ").map(str::to_owned).collect();
    let id = texts(answer).pop().unwrap_or_default();
    let numbers =
        id.split([':', '.']).map(|part| i64::from_str_radix(part, 16).unwrap_or_default());
    for (place, number) in parts.iter_mut().skip(1).zip(numbers.take(3)) {
        *place = number.to_string();
    }
    parts.join(", ")
}

/// The texts in an answer of a driver; none in an error.
fn texts(answer: &str) -> Vec<String> {
    if answer.starts_with('{') {
        return Vec::new();
    }
    answer.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Words, and the characters between them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let mut rest = text;
    std::iter::from_fn(move || {
        let first = rest.chars().next()?;
        let end = rest.find(|c| is_part(c) != is_part(first)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        Some(word)
    })
}

/// Container ids: runs of 64 hexadecimal digits.
fn hexadecimal_runs(text: &str) -> Vec<String> {
    let runs = text.split(|c: char| !c.is_ascii_hexdigit());
    runs.filter(|run| run.len() == 64).map(str::to_owned).collect()
}

/// UUIDs, with hyphens or underscores.
fn uuids(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == '-' || c == '_';
    let runs = text.split(|c: char| !is_part(c));
    // Other characters may precede it, as in `kubepods-burstable-pod…`, but none of these.
    let end = |run: &str| run.get(run.len().checked_sub(36)?..).map(str::to_owned);
    runs.filter_map(end).filter(|run| is_uuid(run)).collect()
}

fn is_uuid(text: &str) -> bool {
    let mut groups = text.split(['-', '_']).map(str::len);
    text.len() == 36 && [8, 4, 4, 4, 12].iter().all(|length| groups.next() == Some(*length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_has_one_replacement() {
        let mut names = Names::new(false, ["kai-resource-reservation".to_owned()]);
        assert_eq!(names.namespace("ml"), "namespace-1");
        assert_eq!(names.pod("train"), "pod-1");
        assert_eq!(names.container("train"), "pod-1");
        assert_eq!(names.namespace("kai-resource-reservation"), "kai-resource-reservation");
        assert_eq!(names.process("nvidia-cuda-mps"), "nvidia-cuda-mps");
        assert_eq!(names.pod(""), "");
        assert_eq!(names.replace_in("a train, 0 of retrain"), "a pod-1, 0 of retrain");
        let mut names = Names::new(true, []);
        assert_eq!(names.pod("train"), "train");
        assert_eq!(names.replace_in("train"), "train");
    }

    #[test]
    fn replacements_are_not_replaced_again() {
        let mut names = Names::new(false, []);
        let uuid = |n: u32| format!("\"GPU-00000000-0000-4000-8000-{n:012}\"");
        let answers = format!("nvmlDeviceGetUUID = {}\nnvmlDeviceGetUUID = {}\n", uuid(2), uuid(1));
        names.replace_driver(&answers);
        let ids = format!("{}::1, {}", uuid(1), uuid(2));
        assert_eq!(names.replace_in(&ids), format!("{}::1, {}", uuid(2), uuid(1)));
    }

    #[test]
    fn cgroups_keep_their_shape() {
        let mut names = Names::new(false, []);
        let uid = "0ef39ceb-a62d-45a4-987a-8a9a5b4e9e2a";
        assert_eq!(names.pod_uid(uid), "00000000-0000-4000-9000-000000000001");
        let id = "5f".repeat(32);
        let path = format!(
            "0::/kubepods.slice/kubepods-pod{}.slice/cri-containerd-{id}.scope",
            uid.replace('-', "_")
        );
        let replaced = names.cgroup(&path);
        let expected = "0::/kubepods.slice/kubepods-pod00000000_0000_4000_9000_000000000001.slice/";
        assert!(replaced.starts_with(expected), "{replaced}");
        assert!(replaced.ends_with(&format!("/cri-containerd-{:0>64}.scope", 1)), "{replaced}");
        let other = names.cgroup("0::/kubepods/pod1ef39ceb-a62d-45a4-987a-8a9a5b4e9e2a/x");
        assert_eq!(other, "0::/kubepods/pod00000000-0000-4000-9000-000000000002/x");
    }

    #[test]
    fn identities_of_boards_are_replaced() {
        let answers = "[answers.\"gpu 0\"]\n\
            nvmlDeviceGetUUID = \"GPU-0ef39ceb-a62d-45a4-987a-8a9a5b4e9e2a\"\n\
            nvmlDeviceGetSerial = \"1320620013466\"\n\
            nvmlDeviceGetPciInfo_v3 = [\"0000:1B:00.0\", 0, 27, 0, 7, 8, \"00000000:1B:00.0\"]\n\
            nvmlDeviceGetPlatformInfo = [\"21ac0000\", \"1823\", 1, 2]\n\
            \"nvmlDeviceGetHandleByUUID GPU-0ef39ceb-a62d-45a4-987a-8a9a5b4e9e2a\" = \"gpu 0\"\n";
        let mut names = Names::new(false, []);
        let expected = "[answers.\"gpu 0\"]\n\
            nvmlDeviceGetUUID = \"GPU-00000000-0000-4000-8000-000000000001\"\n\
            nvmlDeviceGetSerial = \"1000000000001\"\n\
            nvmlDeviceGetPciInfo_v3 = [\"0000:01:00.0\", 0, 1, 0, 7, 8, \"00000000:01:00.0\"]\n\
            nvmlDeviceGetPlatformInfo = [\"01020000\", \"0001\", 1, 2]\n\
            \"nvmlDeviceGetHandleByUUID GPU-00000000-0000-4000-8000-000000000001\" = \"gpu 0\"\n";
        assert_eq!(names.replace_driver(answers), expected);
    }
}
