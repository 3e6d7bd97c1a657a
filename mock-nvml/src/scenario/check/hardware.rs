//! Validation of what is wrong with hardware, and of XIDs.

use toml::Spanned;

use super::{during, gpu_exists};
use crate::{
    models::{Model, Repair},
    scenario::{
        complaint::{Checked, Flaw, ensure, suggestion},
        file::{
            EccTable, GpuTable, NvLinkTable, RemappedTable, RetiredTable, SlowedTable, XidTable,
        },
        hardware::{
            Ecc, Errors, Hardware, LinkFaults, Moment, Policy, Remapped, Retired, Slowed, Xid,
        },
    },
};

const POLICIES: [(&str, Policy); 3] = [
    ("sync_boost", Policy::SyncBoost),
    ("board_limit", Policy::BoardLimit),
    ("reliability", Policy::Reliability),
];
/// More XIDs than a scenario needs.
const MOST_XIDS: usize = 10_000;

/// What a GPU's table says of its hardware.
pub(super) fn check(said: &GpuTable, model: &Model) -> Checked<Hardware> {
    let slowed = said.slowed.iter().map(|table| slowed(table, model)).collect::<Checked<_>>()?;
    Ok(Hardware {
        ecc: said.ecc.as_ref().map(|table| ecc(table, model)).transpose()?.unwrap_or_default(),
        retired: said
            .retired
            .as_ref()
            .map(|table| retired(table, model))
            .transpose()?
            .unwrap_or_default(),
        remapped: said
            .remapped
            .as_ref()
            .map(|table| remapped(table, model))
            .transpose()?
            .unwrap_or_default(),
        nvlink: said
            .nvlink
            .as_ref()
            .map(|table| nvlink(table, model))
            .transpose()?
            .unwrap_or_default(),
        slowed,
    })
}

/// All XIDs, in order of time.
pub(super) fn xids(tables: &[XidTable], gpus: usize) -> Checked<Vec<Xid>> {
    let mut xids = tables.iter().map(|table| xid(table, gpus)).collect::<Checked<Vec<_>>>()?;
    if let Some(table) = tables.get(MOST_XIDS) {
        let text = format!("more than {MOST_XIDS} XIDs: leave some out");
        return Err(Flaw::new(table.code.span(), text));
    }
    xids.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(xids)
}

fn xid(table: &XidTable, gpus: usize) -> Checked<Xid> {
    gpu_exists(&table.gpu, gpus)?;
    let (at, code) = (*table.at.get_ref(), *table.code.get_ref());
    ensure(at.is_finite() && at >= 0.0, &table.at, || format!("at = {at}: give seconds from 0"))?;
    ensure(code > 0, &table.code, || "code = 0 is no XID: give 1 or more".into())?;
    let gpu = *table.gpu.get_ref();
    Ok(Xid { gpu, at, code, gpu_instance: table.gi, compute_instance: table.ci })
}

fn ecc(table: &Spanned<EccTable>, model: &Model) -> Checked<Ecc> {
    let mend = || format!("ecc: a {} counts no memory errors: leave it out", model.key);
    ensure(model.counts_errors(), table, mend)?;
    let said = table.get_ref();
    let errors = |kind: &str, volatile: u32, aggregate: Option<u32>| {
        let aggregate = aggregate.unwrap_or(volatile);
        let mend = "the aggregate holds the volatile ones too: give at least as many";
        let text = || format!("ecc: {kind}_aggregate = {aggregate}: {mend}");
        ensure(aggregate >= volatile, table, text)?;
        Ok(Errors { volatile, aggregate })
    };
    Ok(Ecc {
        corrected: errors("sbe", said.sbe_volatile, said.sbe_aggregate)?,
        uncorrected: errors("dbe", said.dbe_volatile, said.dbe_aggregate)?,
        from: moment("ecc", table, said.from)?,
    })
}

fn retired(table: &Spanned<RetiredTable>, model: &Model) -> Checked<Retired> {
    let mend = || format!("retired: a {} retires no pages: leave it out", model.key);
    ensure(model.repair == Repair::Pages, table, mend)?;
    let RetiredTable { sbe, dbe, pending } = *table.get_ref();
    // The InfoROM has room for 64.
    let fits = sbe.saturating_add(dbe) <= 64;
    ensure(fits, table, || "retired: more than 64 pages: give fewer".into())?;
    Ok(Retired { sbe, dbe, pending })
}

fn remapped(table: &Spanned<RemappedTable>, model: &Model) -> Checked<Remapped> {
    let Repair::Rows { banks } = model.repair else {
        let text = format!("remapped: a {} remaps no rows: leave it out", model.key);
        return Err(Flaw::new(table.span(), text));
    };
    let RemappedTable { correctable, uncorrectable, pending, failure } = *table.get_ref();
    let fits = correctable.saturating_add(uncorrectable) <= banks;
    ensure(fits, table, || format!("remapped: more rows than {banks} banks: give fewer"))?;
    Ok(Remapped { correctable, uncorrectable, pending, failure })
}

fn nvlink(table: &Spanned<NvLinkTable>, model: &Model) -> Checked<LinkFaults> {
    let Some(links) = model.nvlinks else {
        let text = format!("nvlink: a {} has no NVLink: leave it out", model.key);
        return Err(Flaw::new(table.span(), text));
    };
    let said = table.get_ref();
    for link in said.down.iter().chain([&said.link]) {
        let mend = || format!("nvlink: no link {link}: use 0 to {}", links.count - 1);
        ensure(*link < links.count, table, mend)?;
    }
    Ok(LinkFaults {
        down: said.down.clone(),
        link: said.link,
        crc_flit: said.crc_flit,
        crc_data: said.crc_data,
        replay: said.replay,
        recovery: said.recovery,
        from: moment("nvlink", table, said.from)?,
    })
}

fn slowed(table: &SlowedTable, model: &Model) -> Checked<Slowed> {
    let word = table.by.get_ref();
    let mend = || format!("slowed: a {} does not count that: leave it out", model.key);
    ensure(model.violations, &table.by, mend)?;
    let known = POLICIES.iter().find(|(name, _)| name == word).map(|(_, policy)| *policy);
    let by = known.ok_or_else(|| {
        let names = || POLICIES.iter().map(|(name, _)| *name);
        let near = suggestion(word, names());
        let near = if near.is_empty() { ":" } else { near.as_str() };
        let all = names().collect::<Vec<_>>().join(", ");
        Flaw::new(table.by.span(), format!("slowed by \"{word}\"{near} it can be {all}"))
    })?;
    Ok(Slowed { by, during: during(table.from.as_ref(), table.to.as_ref())? })
}

fn moment<T>(key: &str, table: &Spanned<T>, said: Option<f64>) -> Checked<Moment> {
    let Some(from) = said else { return Ok(Moment::default()) };
    ensure(from.is_finite(), table, || format!("{key}: from = {from}: give finite seconds"))?;
    Ok(Moment(from))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{GPU, complaint};

    #[test]
    fn a_mistake_in_hardware_names_its_line_and_its_mend() {
        let h100 = "[[gpu]]\nmodel = \"H100\"\n";
        for (text, said) in [
            (
                format!("{GPU}remapped = {{ correctable = 1 }}\n"),
                "3: remapped: a T4 remaps no rows: leave it out",
            ),
            (
                format!("{h100}retired = {{ sbe = 1 }}\n"),
                "3: retired: a H100 retires no pages: leave it out",
            ),
            (
                format!("{GPU}nvlink = {{ down = [0] }}\n"),
                "3: nvlink: a T4 has no NVLink: leave it out",
            ),
            (format!("{h100}nvlink = {{ down = [18] }}\n"), "3: nvlink: no link 18: use 0 to 17"),
            (
                format!("{h100}ecc = {{ dbe_volatile = 2, dbe_aggregate = 1 }}\n"),
                "3: ecc: dbe_aggregate = 1: the aggregate holds the volatile ones too: give at \
                 least as many",
            ),
            (
                format!("{h100}ecc = {{ sbe = 2 }}\n"),
                "3: unknown key \"sbe\": known here: sbe_volatile, dbe_volatile, sbe_aggregate, \
                 dbe_aggregate, from",
            ),
            (
                "[[gpu]]\nmodel = \"RTX 4090\"\necc = { sbe_volatile = 1 }\n".to_owned(),
                "3: ecc: a RTX 4090 counts no memory errors: leave it out",
            ),
            (
                format!("{h100}slowed = [{{ by = \"sync-boost\" }}]\n"),
                "3: slowed by \"sync-boost\", did you mean \"sync_boost\"? it can be sync_boost, \
                 board_limit, reliability",
            ),
            (
                format!("{h100}[[xid]]\ngpu = 1\nat = 3\ncode = 79\n"),
                "4: no GPU 1: the scenario has 1, use 0 to 0",
            ),
            (
                format!("{h100}[[xid]]\ngpu = 0\nat = -3\ncode = 79\n"),
                "5: at = -3: give seconds from 0",
            ),
            (
                format!("{h100}[[xid]]\ngpu = 0\nat = 3\ncode = 0\n"),
                "6: code = 0 is no XID: give 1 or more",
            ),
        ] {
            assert_eq!(complaint(&text), said, "for\n{text}");
        }
    }
}
