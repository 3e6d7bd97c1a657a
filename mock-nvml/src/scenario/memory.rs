//! Framebuffer sizes, and whether they fit.

use std::ops::Range;

use toml::Spanned;

use super::{
    Gpu, Process,
    complaint::{Checked, Flaw},
};
use crate::{
    models::MIB,
    number::{float, floor_u64},
};

/// Reads `"20 GiB"` or `"512 MiB"` into bytes; `"unavailable"` is `None`.
pub(super) fn size(text: &Spanned<String>) -> Checked<Option<u64>> {
    let said = text.get_ref();
    if said == "unavailable" {
        return Ok(None);
    }
    let parsed = said.split_once(' ').and_then(|(number, unit)| {
        let unit = match unit {
            "MiB" => MIB,
            "GiB" => MIB << 10,
            _ => return None,
        };
        let number: f64 = number.parse().ok()?;
        (0.0..1e6).contains(&number).then(|| floor_u64(number * float(unit)))
    });
    parsed.map(Some).ok_or_else(|| {
        let mend = "write \"512 MiB\", \"20 GiB\" or \"unavailable\"";
        Flaw::new(text.span(), format!("memory = \"{said}\" is no size: {mend}"))
    })
}

/// Refuses processes that at some time hold more than there is of a GPU or of a GPU instance. `spans`
/// tells where the memory of each process is said.
pub(super) fn fits(gpus: &[Gpu], processes: &[Process], spans: &[Range<usize>]) -> Checked<()> {
    for gpu in gpus {
        let on_it: Vec<_> = gpu
            .processes
            .iter()
            .filter_map(|&at| Some((processes.get(at)?, spans.get(at)?)))
            .collect();
        let whole = Room {
            of: format!("GPU {}", gpu.index),
            kind: gpu.model.key,
            bytes: gpu.model.room(),
            elsewhere: "GPU",
        };
        whole.holds(&on_it)?;
        for (during, instance) in
            gpu.mig.iter().flat_map(|one| one.instances.iter().map(|gi| (one.during, gi)))
        {
            let mut inside = on_it.clone();
            inside.retain(|(process, _)| instance.holds(process) && process.life.overlaps(during));
            let part = Room {
                of: format!("GPU {}, GPU instance {}", gpu.index, instance.id),
                kind: instance.profile.name,
                bytes: instance.room(),
                elsewhere: "instance",
            };
            part.holds(&inside)?;
        }
    }
    Ok(())
}

/// Framebuffer that processes share.
struct Room {
    /// Whose it is.
    of: String,
    /// What such a thing is called.
    kind: &'static str,
    /// How much.
    bytes: u64,
    /// What else there may be.
    elsewhere: &'static str,
}

impl Room {
    fn holds(&self, on_it: &[(&Process, &Range<usize>)]) -> Checked<()> {
        // The sum can only grow where a process starts.
        let mut changes: Vec<_> = on_it
            .iter()
            .flat_map(|(process, span)| {
                let bytes = i128::from(process.memory.unwrap_or(0));
                let life = process.life;
                [(life.from, bytes, Some((process.pid, *span))), (life.to, -bytes, None)]
            })
            .collect();
        changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut held = 0;
        for (time, bytes, starter) in changes {
            held += bytes;
            if let Some((pid, span)) = starter
                && held > i128::from(self.bytes)
            {
                return Err(Flaw::new(span.clone(), self.overcommit(pid, time, held)));
            }
        }
        Ok(())
    }

    fn overcommit(&self, pid: u32, time: f64, held: i128) -> String {
        let when = if time.is_finite() { format!("at {time} s") } else { "from the start".into() };
        format!(
            "{} would hold {} MiB {when}, but a {} has {} MiB for processes: \
             give process {pid} less memory or another {}",
            self.of,
            held / i128::from(MIB),
            self.kind,
            self.bytes / MIB,
            self.elsewhere,
        )
    }
}
