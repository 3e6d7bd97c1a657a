//! Framebuffer sizes, and whether they fit.

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

/// Refuses processes that at some time hold more of a GPU than it has. `spans` tells where the
/// memory of each process is said.
pub(super) fn fits(
    gpus: &[Gpu],
    processes: &[Process],
    spans: &[std::ops::Range<usize>],
) -> Checked<()> {
    for gpu in gpus {
        let on_it: Vec<_> = gpu
            .processes
            .iter()
            .filter_map(|&at| Some((processes.get(at)?, spans.get(at)?)))
            .collect();
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
                && held > i128::from(gpu.model.room())
            {
                return Err(Flaw::new(span.clone(), overcommit(gpu, pid, time, held)));
            }
        }
    }
    Ok(())
}

fn overcommit(gpu: &Gpu, pid: u32, time: f64, held: i128) -> String {
    let when = if time.is_finite() { format!("at {time} s") } else { "from the start".into() };
    format!(
        "GPU {} would hold {} MiB {when}, but a {} has {} MiB for processes: \
         give process {pid} less memory or another GPU",
        gpu.index,
        held / i128::from(MIB),
        gpu.model.key,
        gpu.model.room() / MIB,
    )
}
