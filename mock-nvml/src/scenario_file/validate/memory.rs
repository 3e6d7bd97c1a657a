//! Validation of the framebuffer of processes.

use std::ops::Range;

use toml::Spanned;

use crate::{
    models::MIB,
    numeric::{float, floor_u64},
    scenario::{Gpu, MemoryLimit, Process},
    scenario_file::{
        error::{SpannedError, ValidationResult},
        tables::MemoryLimitTable,
    },
};

/// Parses `"20 GiB"` or `"512 MiB"` into bytes; `"unavailable"` is `None`.
pub(super) fn parse_size(text: &Spanned<String>) -> ValidationResult<Option<u64>> {
    let size = text.get_ref();
    if size == "unavailable" {
        return Ok(None);
    }
    bytes(size).map(Some).ok_or_else(|| {
        let remedy = "write \"512 MiB\", \"20 GiB\" or \"unavailable\"";
        SpannedError::new(text.span(), format!("memory = \"{size}\" is not a size: {remedy}"))
    })
}

/// Parses the total framebuffer of a GPU into bytes.
pub(super) fn parse_total(text: &Spanned<String>) -> ValidationResult<u64> {
    let size = text.get_ref();
    bytes(size).ok_or_else(|| {
        let remedy = "write \"0 MiB\" or \"20 GiB\"";
        SpannedError::new(text.span(), format!("memory_total = \"{size}\" is not a size: {remedy}"))
    })
}

/// Parses a limit of the memory of a cgroup.
pub(super) fn parse_limit(table: &MemoryLimitTable) -> ValidationResult<MemoryLimit> {
    let size = |text: &Option<Spanned<String>>| text.as_ref().map(parse_total).transpose();
    Ok(MemoryLimit {
        cgroup: table.cgroup.clone(),
        soft: size(&table.soft)?.unwrap_or_default(),
        hard: size(&table.hard)?,
        used: size(&table.used)?,
    })
}

fn bytes(size: &str) -> Option<u64> {
    let (number, unit) = size.split_once(' ')?;
    let unit = match unit {
        "MiB" => MIB,
        "GiB" => MIB << 10,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    (0.0..1e6).contains(&number).then(|| floor_u64(number * float(unit)))
}

/// Rejects processes that at some time use more memory than their GPU or GPU instance has. `spans` are the
/// positions of the `memory` key of each process.
pub(super) fn check_capacity(
    gpus: &[Gpu],
    processes: &[Process],
    spans: &[Range<usize>],
) -> ValidationResult<()> {
    // A total that the driver reports wrongly limits nothing.
    for gpu in gpus.iter().filter(|gpu| gpu.memory_total.is_none()) {
        let with_spans: Vec<_> = gpu
            .processes
            .iter()
            .filter_map(|&at| Some((processes.get(at)?, spans.get(at)?)))
            .collect();
        let whole = Capacity {
            name: format!("GPU {}", gpu.index),
            kind: gpu.model.key,
            bytes: gpu.model.available_bytes(),
            alternative: "GPU",
        };
        whole.check(&with_spans)?;
        for (during, instance) in
            gpu.mig.iter().flat_map(|one| one.instances.iter().map(|gi| (one.during, gi)))
        {
            let mut inside = with_spans.clone();
            inside.retain(|(process, _)| {
                process.runs_in(instance) && process.lifetime.overlaps(during)
            });
            let part = Capacity {
                name: format!("GPU {}, GPU instance {}", gpu.index, instance.id),
                kind: instance.profile.name,
                bytes: instance.available_bytes(),
                alternative: "instance",
            };
            part.check(&inside)?;
        }
    }
    Ok(())
}

/// Framebuffer of a GPU or GPU instance that is available to processes.
struct Capacity {
    /// The GPU or GPU instance, as in errors.
    name: String,
    /// Model or MIG profile.
    kind: &'static str,
    bytes: u64,
    /// `GPU` or `instance`, for the remedy.
    alternative: &'static str,
}

impl Capacity {
    fn check(&self, processes: &[(&Process, &Range<usize>)]) -> ValidationResult<()> {
        // The sum only grows when a process starts.
        let mut changes: Vec<_> = processes
            .iter()
            .flat_map(|(process, span)| {
                let bytes = i128::from(process.memory.unwrap_or(0));
                let life = process.lifetime;
                [(life.from, bytes, Some((process.pid, *span))), (life.to, -bytes, None)]
            })
            .collect();
        changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut used = 0;
        for (time, bytes, started) in changes {
            used += bytes;
            if let Some((pid, span)) = started
                && used > i128::from(self.bytes)
            {
                return Err(SpannedError::new(span.clone(), self.overcommit(pid, time, used)));
            }
        }
        Ok(())
    }

    fn overcommit(&self, pid: u32, time: f64, used: i128) -> String {
        let when = if time.is_finite() { format!("at {time} s") } else { "from the start".into() };
        format!(
            "the processes on {} ({}) use {} MiB {when}, but only {} MiB are available: \
             reduce the memory of process {pid} or move it to another {}",
            self.name,
            self.kind,
            used / i128::from(MIB),
            self.bytes / MIB,
            self.alternative,
        )
    }
}
