//! Validation of processes.

use std::collections::HashMap;

use toml::Spanned;

use crate::{
    scenario::{Gpu, Process, ProcessType, cluster::Cluster},
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure},
        tables::{GpuList, ProcEntry, ProcessTable, WindowTable},
        validate::{
            cluster::processes::assign_container,
            curves, memory, mig_instances, pipes,
            values::{unknown_gpu_error, validate_text},
            windows::{time_window, window},
        },
    },
    window::Window,
};

const MAX_PROCESSES: usize = 10_000;
/// Highest PID of the kernel.
const MAX_PID: u32 = 4_194_304;

/// The processes of the tables, with `count` expanded. Sets [`Gpu::processes`] of each GPU.
pub(super) fn check(
    tables: &[Spanned<ProcessTable>],
    gpus: &mut [Gpu],
    cluster: Option<&Cluster>,
) -> ValidationResult<Vec<Process>> {
    let mut processes: Vec<Process> = vec![];
    let mut spans = vec![];
    let (mut in_lists, mut in_proc) = (HashMap::new(), HashMap::new());
    for table in tables {
        let spec = table.get_ref();
        let (first, count) = (process(spec, gpus.len())?, count(spec, processes.len())?);
        for clone in 0..count {
            let mut process = cloned(&first, spec, clone, gpus)?;
            assign_container(&mut process, spec, clone, cluster)?;
            mig_instances::check(&process, spec, gpus)?;
            // A PID may be used again while the driver still lists the process that had it.
            let listed = (!process.gpus.is_empty()).then_some(process.lifetime);
            let shown = process.proc_lifetime();
            for (taken, life) in [(&mut in_lists, listed), (&mut in_proc, shown)] {
                claim_pid(taken, process.pid, life, spec)?;
            }
            for &index in &process.gpus {
                if let Some(gpu) = gpus.get_mut(index) {
                    gpu.processes.push(processes.len());
                }
            }
            processes.push(process);
            spans.push(spec.memory.span());
        }
    }
    memory::check_capacity(gpus, &processes, &spans)?;
    Ok(processes)
}

/// Rejects a PID that another process has at the same time.
fn claim_pid(
    taken: &mut HashMap<u32, Vec<Window>>,
    pid: u32,
    life: Option<Window>,
    table: &ProcessTable,
) -> ValidationResult<()> {
    let Some(life) = life else { return Ok(()) };
    let times = taken.entry(pid).or_default();
    ensure(!times.iter().any(|other| other.overlaps(life)), &table.pid, || {
        format!("pid {pid} belongs to another process at the same time: write a unique one")
    })?;
    times.push(life);
    Ok(())
}

fn count(table: &ProcessTable, before: usize) -> ValidationResult<u32> {
    let Some(count) = &table.count else { return Ok(1) };
    let clones = *count.get_ref();
    ensure(clones > 0, count, || "count = 0 is out of range: write 1 or more".into())?;
    let sum = before + usize::try_from(clones).unwrap_or(usize::MAX);
    ensure(sum <= MAX_PROCESSES, count, || {
        format!("{sum} processes are more than {MAX_PROCESSES}: reduce the count")
    })?;
    Ok(clones)
}

fn process(table: &ProcessTable, gpus: usize) -> ValidationResult<Process> {
    let name = validate_text("name", &table.name)?;
    let cgroup = match &table.cgroup {
        None => "0::/system.slice/mock.service".to_owned(),
        Some(cgroup) => validate_text("cgroup", cgroup)?,
    };
    let (in_proc, readable) = proc_entry(table)?;
    Ok(Process {
        pid: *table.pid.get_ref(),
        command: command(table, &name)?,
        name,
        cgroup,
        kind: kind(table.kind.as_ref())?,
        gpus: self::gpus(&table.gpus, gpus)?,
        instance: mig_instances::parse(table)?,
        memory: memory::parse_size(&table.memory)?,
        sm: curves::check("sm", table.sm.as_ref())?,
        mem: curves::check("mem", table.mem.as_ref())?,
        enc: curves::check("enc", table.enc.as_ref())?,
        dec: curves::check("dec", table.dec.as_ref())?,
        jpg: curves::check("jpg", table.jpg.as_ref())?,
        ofa: curves::check("ofa", table.ofa.as_ref())?,
        nvlink: curves::rate("nvlink", table.nvlink.as_ref())?,
        pcie_tx: curves::rate("pcie_tx", table.pcie_tx.as_ref())?,
        pcie_rx: curves::rate("pcie_rx", table.pcie_rx.as_ref())?,
        pipes: pipes::check(table.pipes.as_ref())?,
        lifetime: life(table)?,
        zombie: table.zombie.as_ref().map(|zombie| window("zombie", zombie)).transpose()?,
        in_proc,
        readable,
    })
}

/// The process number `clone` of a `count`: with the next pid, and the next GPU of `"spread"`.
fn cloned(
    first: &Process,
    table: &ProcessTable,
    clone: u32,
    gpus: &[Gpu],
) -> ValidationResult<Process> {
    let pid = first.pid.checked_add(clone).filter(|pid| (1..=MAX_PID).contains(pid));
    let pid = pid.ok_or_else(|| {
        SpannedError::new(
            table.pid.span(),
            format!("the pid is out of range: write 1 to {MAX_PID}"),
        )
    })?;
    let mut process = Process { pid, ..first.clone() };
    if matches!(table.gpus.get_ref(), GpuList::Word(_)) {
        let (clone, count) = (usize::try_from(clone).unwrap_or_default(), gpus.len().max(1));
        process.gpus = vec![clone % count];
        let gpu = gpus.get(clone % count);
        process.instance = process
            .instance
            .or(gpu.and_then(|gpu| mig_instances::spread(&process, gpu, clone / count)));
    }
    Ok(process)
}

fn gpus(value: &Spanned<GpuList>, gpus: usize) -> ValidationResult<Vec<usize>> {
    let list = match value.get_ref() {
        GpuList::Word(word) if word == "spread" => return Ok(vec![]),
        GpuList::Word(word) => {
            let remedy = "write an array of indexes or \"spread\"";
            return Err(SpannedError::new(
                value.span(),
                format!("gpus = \"{word}\" is unknown: {remedy}"),
            ));
        }
        GpuList::Indexes(list) => list,
    };
    for (at, index) in list.iter().enumerate() {
        ensure(*index < gpus, value, || unknown_gpu_error(*index, gpus))?;
        let twice = list.iter().take(at).any(|before| before == index);
        ensure(!twice, value, || format!("GPU {index} is listed twice: list it once"))?;
    }
    Ok(list.clone())
}

fn kind(value: Option<&Spanned<String>>) -> ValidationResult<ProcessType> {
    let Some(value) = value else { return Ok(ProcessType::Compute) };
    match value.get_ref().as_str() {
        "C" => Ok(ProcessType::Compute),
        "G" => Ok(ProcessType::Graphics),
        "C+G" => Ok(ProcessType::Both),
        "M" => Ok(ProcessType::Mps),
        other => {
            let text = format!("unknown type \"{other}\": write \"C\", \"G\", \"C+G\" or \"M\"");
            Err(SpannedError::new(value.span(), text))
        }
    }
}

fn command(table: &ProcessTable, name: &str) -> ValidationResult<Vec<String>> {
    let Some(command) = &table.command else { return Ok(vec![name.to_owned()]) };
    let words = command.get_ref();
    let valid = !words.is_empty() && words.iter().all(|word| !word.contains('\0'));
    ensure(valid, command, || {
        "command is empty or contains a NUL character: write [\"python\", …]".into()
    })?;
    Ok(words.clone())
}

/// While the proc root contains the process, and whether its files can be read.
fn proc_entry(table: &ProcessTable) -> ValidationResult<(Option<Window>, bool)> {
    let Some(entry) = &table.proc else { return Ok((Some(Window::ALWAYS), true)) };
    match entry.get_ref() {
        ProcEntry::Flag(shown) => Ok((shown.then_some(Window::ALWAYS), true)),
        ProcEntry::Word(word) if word == "unreadable" => Ok((Some(Window::ALWAYS), false)),
        ProcEntry::Word(word) => {
            let remedy = "write true, false, \"unreadable\" or { from, to }";
            Err(SpannedError::new(entry.span(), format!("proc = \"{word}\" is unknown: {remedy}")))
        }
        ProcEntry::Window(WindowTable { from, to }) => {
            let during = time_window(from.unwrap_or(f64::MIN), *to);
            let during = during
                .map_err(|error| SpannedError::new(entry.span(), format!("proc: {error}")))?;
            Ok((Some(during), true))
        }
    }
}

fn life(table: &ProcessTable) -> ValidationResult<Window> {
    let from = table.start.as_ref().map_or(f64::NEG_INFINITY, |start| *start.get_ref());
    let to = table.end.as_ref().map_or(f64::INFINITY, |end| *end.get_ref());
    let span = table.start.as_ref().or(table.end.as_ref()).map(Spanned::span).unwrap_or_default();
    let finite = table.start.as_ref().is_none_or(|start| start.get_ref().is_finite());
    if !finite || to.is_nan() || from >= to {
        let text =
            format!("start = {from}, end = {to} is not a lifetime: write an end after the start");
        return Err(SpannedError::new(span, text));
    }
    Ok(Window { from, to })
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;
    use crate::scenario_file::validate::test_scenario::{GPU, PROCESS, error_of};

    #[test]
    fn errors_in_process_tables_have_line_reason_and_remedy() {
        for (rest, expected) in [
            ("sm = 101\n", "8: sm = 101 is out of range: write 0 to 100 %"),
            (
                "sn = 1\n",
                "8: unknown key \"sn\", did you mean \"sm\"? the keys here are pid, name, command, \
                 cgroup, type, gpus, gi, ci, memory, sm, mem, enc, dec, jpg, ofa, nvlink, pcie_tx, \
                 pcie_rx, pipes, start, end, zombie, proc, count, pod, container",
            ),
            (
                "start = 5\nend = 5\n",
                "8: start = 5, end = 5 is not a lifetime: write an end after the start",
            ),
            ("type = \"X\"\n", "8: unknown type \"X\": write \"C\", \"G\", \"C+G\" or \"M\""),
            (
                "sm = { wave = \"saw\", high = 1, period = 1 }\n",
                "8: sm: unknown wave \"saw\": write \"sine\" or \"square\"",
            ),
            (
                "sm = { wave = \"sine\", high = 50, period = 0 }\n",
                "8: sm: period = 0 is out of range: write seconds above 0",
            ),
            (
                "sm = { points = [[0, 1], [0, 2]] }\n",
                "8: sm: the point at 0 s follows the one at 0 s: write points in ascending order of \
                 time",
            ),
            (
                "sm = { wave = \"sine\", hihg = 50, period = 1 }\n",
                "8: unknown key \"hihg\", did you mean \"high\"? the keys here are wave, low, high, \
                 period, phase, duty, points, repeat",
            ),
            (PROCESS, "9: pid 7 belongs to another process at the same time: write a unique one"),
            ("count = 10001\n", "8: 10001 processes are more than 10000: reduce the count"),
        ] {
            let text = format!("{GPU}{PROCESS}{rest}");
            assert_eq!(error_of(&text), expected, "for\n{text}");
        }
    }

    #[test]
    fn process_requires_existing_gpus_and_a_memory_size() {
        let with = |gpus: &str, memory: &str| {
            format!(
                "{GPU}[[process]]\npid = 7\nname = \"p\"\ngpus = {gpus}\nmemory = \"{memory}\"\n"
            )
        };
        for (text, expected) in [
            (with("[1]", "1 GiB"), "6: GPU 1 does not exist: the scenario has 1, write 0 to 0"),
            (with("[0, 0]", "1 GiB"), "6: GPU 0 is listed twice: list it once"),
            (
                with("\"all\"", "1 GiB"),
                "6: gpus = \"all\" is unknown: write an array of indexes or \"spread\"",
            ),
            (
                with("[0]", "1 GB"),
                "7: memory = \"1 GB\" is not a size: write \"512 MiB\", \"20 GiB\" or \"unavailable\"",
            ),
            (
                with("[0]", "15 GiB"),
                "7: the processes on GPU 0 (T4) use 15360 MiB from the start, but only 14932 MiB are \
                 available: reduce the memory of process 7 or move it to another GPU",
            ),
        ] {
            assert_eq!(error_of(&text), expected, "for\n{text}");
        }
    }

    #[test]
    fn pid_is_free_for_another_process_once_it_is_gone_from_proc() {
        let process = |rest: &str| {
            format!("[[process]]\npid = 7\nname = \"p\"\nmemory = \"1 GiB\"\n{rest}\n")
        };
        let stale = process("gpus = [0]\nend = 60\nproc = { to = 30 }");
        let reused = GPU.to_owned() + &stale + &process("gpus = []\nstart = 30");
        assert!(Scenario::parse("test", &reused).is_ok());
        let error = "11: pid 7 belongs to another process at the same time: write a unique one";
        for both in ["gpus = [0]\nstart = 30", "gpus = []\nstart = 29"] {
            assert_eq!(error_of(&(GPU.to_owned() + &stale + &process(both))), error, "{both}");
        }
        for (proc, expected) in [
            (
                "\"hidden\"",
                "7: proc = \"hidden\" is unknown: write true, false, \"unreadable\" or { from, to }",
            ),
            (
                "{ from = 5, to = 5 }",
                "7: proc: from 5 s to 5 s is empty: write a \"from\" before \"to\"",
            ),
            (
                "7",
                "7: invalid type: integer `7`, expected true, false, \"unreadable\" or { from = …, to = … }",
            ),
        ] {
            let text = GPU.to_owned() + &process(&format!("proc = {proc}\ngpus = [0]"));
            assert_eq!(error_of(&text), expected, "for {proc}");
        }
    }

    #[test]
    fn memory_is_summed_over_processes_with_overlapping_lifetimes() {
        let process = |pid: u32, life: &str| {
            format!(
                "[[process]]\npid = {pid}\nname = \"p\"\ngpus = [0]\nmemory = \"8 GiB\"\n{life}\n"
            )
        };
        let apart = process(1, "end = 10") + &process(2, "start = 10");
        assert!(Scenario::parse("test", &format!("{GPU}{apart}")).is_ok());
        let together = process(1, "end = 10") + &process(2, "start = 9.5");
        assert_eq!(
            error_of(&format!("{GPU}{together}")),
            "13: the processes on GPU 0 (T4) use 16384 MiB at 9.5 s, but only 14932 MiB are available: \
             reduce the memory of process 2 or move it to another GPU"
        );
    }
}
