//! Validation of processes.

use std::collections::HashMap;

use toml::Spanned;

use super::{cluster::place, no_gpu, places, text, window};
use crate::scenario::{
    Gpu, Kind, Process, Window,
    cluster::Cluster,
    complaint::{Checked, Flaw, ensure},
    curves,
    file::{GpuList, ProcessTable},
    memory, pipes,
};

const MOST: usize = 10_000;
/// The kernel's highest pid.
const HIGHEST_PID: u32 = 4_194_304;

/// The processes of the tables, clones written out; each GPU learns which are its own.
pub(super) fn check(
    tables: &[Spanned<ProcessTable>],
    gpus: &mut [Gpu],
    cluster: Option<&Cluster>,
) -> Checked<Vec<Process>> {
    let mut processes: Vec<Process> = vec![];
    let mut spans = vec![];
    let mut taken = HashMap::<u32, Vec<Window>>::new();
    for table in tables {
        let said = table.get_ref();
        let (first, count) = (process(said, gpus.len())?, count(said, processes.len())?);
        for clone in 0..count {
            let mut process = cloned(&first, said, clone, gpus)?;
            place(&mut process, said, clone, cluster)?;
            places::check(&process, said, gpus)?;
            let times = taken.entry(process.pid).or_default();
            if times.iter().any(|life| life.overlaps(process.life)) {
                let mend = "is there already at that time: give each its own pid";
                return Err(Flaw::new(said.pid.span(), format!("process {} {mend}", process.pid)));
            }
            times.push(process.life);
            for &index in &process.gpus {
                if let Some(gpu) = gpus.get_mut(index) {
                    gpu.processes.push(processes.len());
                }
            }
            processes.push(process);
            spans.push(said.memory.span());
        }
    }
    memory::fits(gpus, &processes, &spans)?;
    Ok(processes)
}

fn count(said: &ProcessTable, before: usize) -> Checked<u32> {
    let Some(count) = &said.count else { return Ok(1) };
    let clones = *count.get_ref();
    ensure(clones > 0, count, || "count = 0: give 1 or more".into())?;
    let sum = before + usize::try_from(clones).unwrap_or(usize::MAX);
    ensure(sum <= MOST, count, || format!("{sum} processes are too many: at most {MOST}"))?;
    Ok(clones)
}

fn process(said: &ProcessTable, gpus: usize) -> Checked<Process> {
    let name = text("name", &said.name)?;
    let cgroup = match &said.cgroup {
        None => "0::/system.slice/mock.service".to_owned(),
        Some(cgroup) => text("cgroup", cgroup)?,
    };
    Ok(Process {
        pid: *said.pid.get_ref(),
        command: command(said, &name)?,
        name,
        cgroup,
        kind: kind(said.kind.as_ref())?,
        gpus: self::gpus(&said.gpus, gpus)?,
        place: places::said(said)?,
        memory: memory::size(&said.memory)?,
        sm: curves::check("sm", said.sm.as_ref())?,
        mem: curves::check("mem", said.mem.as_ref())?,
        enc: curves::check("enc", said.enc.as_ref())?,
        dec: curves::check("dec", said.dec.as_ref())?,
        jpg: curves::check("jpg", said.jpg.as_ref())?,
        ofa: curves::check("ofa", said.ofa.as_ref())?,
        nvlink: curves::rate("nvlink", said.nvlink.as_ref())?,
        pcie_tx: curves::rate("pcie_tx", said.pcie_tx.as_ref())?,
        pcie_rx: curves::rate("pcie_rx", said.pcie_rx.as_ref())?,
        pipes: pipes::check(said.pipes.as_ref())?,
        life: life(said)?,
        zombie: said.zombie.as_ref().map(|zombie| window("zombie", zombie)).transpose()?,
        visible: said.proc.unwrap_or(true),
    })
}

/// The `clone`th clone: the next pid, and the next GPU if they are spread.
fn cloned(first: &Process, said: &ProcessTable, clone: u32, gpus: &[Gpu]) -> Checked<Process> {
    let pid = first.pid.checked_add(clone).filter(|pid| (1..=HIGHEST_PID).contains(pid));
    let pid = pid.ok_or_else(|| {
        Flaw::new(said.pid.span(), format!("a pid is 1 to {HIGHEST_PID}: give another"))
    })?;
    let mut process = Process { pid, ..first.clone() };
    if matches!(said.gpus.get_ref(), GpuList::Word(_)) {
        let (clone, count) = (usize::try_from(clone).unwrap_or_default(), gpus.len().max(1));
        process.gpus = vec![clone % count];
        let gpu = gpus.get(clone % count);
        process.place =
            process.place.or(gpu.and_then(|gpu| places::spread(&process, gpu, clone / count)));
    }
    Ok(process)
}

fn gpus(said: &Spanned<GpuList>, gpus: usize) -> Checked<Vec<usize>> {
    let list = match said.get_ref() {
        GpuList::Word(word) if word == "spread" => return Ok(vec![]),
        GpuList::Word(word) => {
            let mend = "give an array of indexes or \"spread\"";
            return Err(Flaw::new(said.span(), format!("gpus = \"{word}\": {mend}")));
        }
        GpuList::These(list) => list,
    };
    ensure(!list.is_empty(), said, || "no GPUs: name at least one".into())?;
    for (at, index) in list.iter().enumerate() {
        ensure(*index < gpus, said, || no_gpu(*index, gpus))?;
        let twice = list.iter().take(at).any(|before| before == index);
        ensure(!twice, said, || format!("GPU {index} is named twice: name each once"))?;
    }
    Ok(list.clone())
}

fn kind(said: Option<&Spanned<String>>) -> Checked<Kind> {
    let Some(said) = said else { return Ok(Kind::Compute) };
    match said.get_ref().as_str() {
        "C" => Ok(Kind::Compute),
        "G" => Ok(Kind::Graphics),
        "C+G" => Ok(Kind::Both),
        "M" => Ok(Kind::Mps),
        other => {
            let text = format!("no type \"{other}\": use \"C\", \"G\", \"C+G\" or \"M\"");
            Err(Flaw::new(said.span(), text))
        }
    }
}

fn command(said: &ProcessTable, name: &str) -> Checked<Vec<String>> {
    let Some(command) = &said.command else { return Ok(vec![name.to_owned()]) };
    let words = command.get_ref();
    let fine = !words.is_empty() && words.iter().all(|word| !word.contains('\0'));
    ensure(fine, command, || "command needs a word, and no NUL: write [\"python\", …]".into())?;
    Ok(words.clone())
}

fn life(said: &ProcessTable) -> Checked<Window> {
    let from = said.start.as_ref().map_or(f64::NEG_INFINITY, |start| *start.get_ref());
    let to = said.end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref());
    let span = said.start.as_ref().or(said.end.as_ref()).map(Spanned::span).unwrap_or_default();
    let told = said.start.as_ref().is_none_or(|start| start.get_ref().is_finite());
    if !told || to.is_nan() || from >= to {
        let text = format!("start = {from}, end = {to}: a process must end after its start");
        return Err(Flaw::new(span, text));
    }
    Ok(Window { from, to })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GPU, PROCESS, complaint};
    use crate::scenario::Scenario;

    #[test]
    fn a_mistake_in_a_process_names_its_line_and_its_mend() {
        for (rest, said) in [
            ("sm = 101\n", "8: sm = 101 is no load: give 0 to 100 %"),
            (
                "sn = 1\n",
                "8: unknown key \"sn\", did you mean \"sm\"? known here: pid, name, command, \
                 cgroup, type, gpus, gi, ci, memory, sm, mem, enc, dec, jpg, ofa, nvlink, pcie_tx, \
                 pcie_rx, pipes, start, end, zombie, proc, count, pod, container",
            ),
            ("start = 5\nend = 5\n", "8: start = 5, end = 5: a process must end after its start"),
            ("type = \"X\"\n", "8: no type \"X\": use \"C\", \"G\", \"C+G\" or \"M\""),
            (
                "sm = { wave = \"saw\", high = 1, period = 1 }\n",
                "8: sm: no wave \"saw\": use \"sine\" or \"square\"",
            ),
            (
                "sm = { wave = \"sine\", high = 50, period = 0 }\n",
                "8: sm: period = 0: give seconds above 0",
            ),
            (
                "sm = { points = [[0, 1], [0, 2]] }\n",
                "8: sm: the point at 0 s comes after the one at 0 s: put points in rising order of \
                 time",
            ),
            (
                "sm = { wave = \"sine\", hihg = 50, period = 1 }\n",
                "8: unknown key \"hihg\", did you mean \"high\"? known here: wave, low, high, \
                 period, phase, duty, points, repeat",
            ),
            (PROCESS, "9: process 7 is there already at that time: give each its own pid"),
            ("count = 10001\n", "8: 10001 processes are too many: at most 10000"),
        ] {
            let text = format!("{GPU}{PROCESS}{rest}");
            assert_eq!(complaint(&text), said, "for\n{text}");
        }
    }

    #[test]
    fn a_process_must_have_a_gpu_and_a_size() {
        let with = |gpus: &str, memory: &str| {
            format!(
                "{GPU}[[process]]\npid = 7\nname = \"p\"\ngpus = {gpus}\nmemory = \"{memory}\"\n"
            )
        };
        for (text, said) in [
            (with("[1]", "1 GiB"), "6: no GPU 1: the scenario has 1, use 0 to 0"),
            (with("[]", "1 GiB"), "6: no GPUs: name at least one"),
            (with("[0, 0]", "1 GiB"), "6: GPU 0 is named twice: name each once"),
            (with("\"all\"", "1 GiB"), "6: gpus = \"all\": give an array of indexes or \"spread\""),
            (
                with("[0]", "1 GB"),
                "7: memory = \"1 GB\" is no size: write \"512 MiB\", \"20 GiB\" or \"unavailable\"",
            ),
            (
                with("[0]", "15 GiB"),
                "7: GPU 0 would hold 15360 MiB from the start, but a T4 has 14932 MiB for \
                 processes: give process 7 less memory or another GPU",
            ),
        ] {
            assert_eq!(complaint(&text), said, "for\n{text}");
        }
    }

    #[test]
    fn memory_is_summed_over_those_that_live_at_the_same_time() {
        let process = |pid: u32, life: &str| {
            format!(
                "[[process]]\npid = {pid}\nname = \"p\"\ngpus = [0]\nmemory = \"8 GiB\"\n{life}\n"
            )
        };
        let apart = process(1, "end = 10") + &process(2, "start = 10");
        assert!(Scenario::parse("test", &format!("{GPU}{apart}")).is_ok());
        let together = process(1, "end = 10") + &process(2, "start = 9.5");
        assert_eq!(
            complaint(&format!("{GPU}{together}")),
            "13: GPU 0 would hold 16384 MiB at 9.5 s, but a T4 has 14932 MiB for processes: give \
             process 2 less memory or another GPU"
        );
    }
}
