//! From the tables of a file to a scenario that can be believed.

mod cluster;
mod faults;
mod gpus;
mod hardware;
mod identity;
mod mig;
mod places;
mod processes;

use std::ops::Range;

use toml::Spanned;

use super::{
    Driver, Garbage, Scenario, Window,
    complaint::{Checked, Flaw, ensure},
    file::{DriverTable, File, GarbageTable, WindowTable},
};
use crate::{abi::FUNCTIONS, branches, fault::Fault};

/// How far a scenario may hold its clock: catching up with a later time would stall the caller.
const LATEST: f64 = 100_000.0;

/// Validates everything; `seed` names the scenario.
pub(super) fn check(seed: &str, file: &File) -> Checked<Scenario> {
    let mut gpus = gpus::check(seed, &file.gpu)?;
    let cluster = cluster::check(seed, file, &gpus)?;
    let processes = processes::check(&file.process, &mut gpus, cluster.as_deref())?;
    let count = gpus.len();
    let driver = driver(&file.driver)?;
    let faults = file.fault.iter().map(|table| faults::check(table, count));
    let lacking = branches::lacking(driver.branch(), FUNCTIONS).map(Fault::missing);
    let faults = faults.chain(lacking.map(Ok)).collect::<Checked<_>>()?;
    Ok(Scenario {
        hold: hold(file.now.as_ref())?,
        in_container: in_container(file.pid_namespace.as_ref())?,
        driver,
        garbage: file.garbage.iter().map(|table| garbage(table, count)).collect::<Checked<_>>()?,
        faults,
        xids: hardware::xids(&file.xid, count)?,
        gpus,
        processes,
        cluster,
    })
}

fn hold(now: Option<&Spanned<f64>>) -> Checked<Option<f64>> {
    now.map(|now| {
        let time = *now.get_ref();
        let mend = || format!("now = {time}: hold the clock at 0 to {LATEST} seconds");
        ensure((0.0..=LATEST).contains(&time), now, mend)?;
        Ok(time)
    })
    .transpose()
}

fn in_container(namespace: Option<&Spanned<String>>) -> Checked<bool> {
    let Some(said) = namespace else { return Ok(false) };
    match said.get_ref().as_str() {
        "host" => Ok(false),
        "container" => Ok(true),
        other => Err(Flaw::new(
            said.span(),
            format!("pid_namespace = \"{other}\": use \"host\" or \"container\""),
        )),
    }
}

fn driver(table: &DriverTable) -> Checked<Driver> {
    let version = version("version", table.version.as_ref(), "550.54.15")?;
    let mut driver = Driver { version, nvml: String::new(), cuda: 0, reloads: vec![] };
    let cuda = match &table.cuda {
        None => branches::cuda(driver.branch()),
        Some(said) => cuda(said.get_ref()).ok_or_else(|| {
            let text = format!("cuda = \"{}\": write it like \"12.4\"", said.get_ref());
            Flaw::new(said.span(), text)
        })?,
    };
    let nvml = format!("{}.{}", cuda / 1_000, driver.version);
    driver.nvml = self::version("nvml", table.nvml.as_ref(), &nvml)?;
    driver.cuda = cuda;
    driver.reloads = windows("reload", &table.reload)?;
    Ok(driver)
}

fn version(key: &str, said: Option<&Spanned<String>>, default: &str) -> Checked<String> {
    let Some(said) = said else { return Ok(default.to_owned()) };
    let fine = !said.get_ref().is_empty()
        && said.get_ref().chars().all(|c| c.is_ascii_digit() || c == '.');
    ensure(fine, said, || format!("{key} = \"{}\": write digits and dots", said.get_ref()))?;
    Ok(said.get_ref().clone())
}

fn cuda(said: &str) -> Option<i32> {
    let (major, minor) = said.split_once('.')?;
    let (major, minor): (i32, i32) = (major.parse().ok()?, minor.parse().ok()?);
    ((1..1_000).contains(&major) && (0..100).contains(&minor)).then_some(1_000 * major + 10 * minor)
}

fn garbage(table: &GarbageTable, gpus: usize) -> Checked<Garbage> {
    gpu_exists(&table.gpu, gpus)?;
    let rows = table.rows.get_ref();
    ensure(!rows.is_empty(), &table.rows, || "no rows: give at least one, or leave it out".into())?;
    let finite = rows.iter().all(|row| row.age.is_finite());
    ensure(finite, &table.rows, || "age must be finite seconds".into())?;
    let during = during(table.from.as_ref(), table.to.as_ref())?;
    Ok(Garbage { gpu: *table.gpu.get_ref(), during, rows: rows.clone() })
}

fn gpu_exists(gpu: &Spanned<usize>, gpus: usize) -> Checked<()> {
    let index = *gpu.get_ref();
    ensure(index < gpus, gpu, || no_gpu(index, gpus))
}

fn no_gpu(index: usize, gpus: usize) -> String {
    format!("no GPU {index}: the scenario has {gpus}, use 0 to {}", gpus.saturating_sub(1))
}

fn windows(key: &str, tables: &[Spanned<WindowTable>]) -> Checked<Vec<Window>> {
    tables.iter().map(|table| window(key, table)).collect()
}

fn window(key: &str, table: &Spanned<WindowTable>) -> Checked<Window> {
    let said = table.get_ref();
    ordered(said.from.unwrap_or(0.0), said.to)
        .map_err(|mend| Flaw::new(table.span(), format!("{key}: {mend}")))
}

fn during(from: Option<&Spanned<f64>>, to: Option<&Spanned<f64>>) -> Checked<Window> {
    let at: Range<usize> = from.or(to).map(Spanned::span).unwrap_or_default();
    ordered(from.map_or(0.0, |from| *from.get_ref()), to.map(|to| *to.get_ref()))
        .map_err(|mend| Flaw::new(at, mend))
}

fn ordered(from: f64, to: Option<f64>) -> Result<Window, String> {
    let to = to.unwrap_or(f64::INFINITY);
    if !from.is_finite() || to.is_nan() || from >= to {
        return Err(format!("from {from} s to {to} s is no time: \"from\" must be before \"to\""));
    }
    Ok(Window { from, to })
}

/// Refuses what C and /proc cannot carry.
fn text(key: &str, said: &Spanned<String>) -> Checked<String> {
    let text = said.get_ref();
    ensure(!text.is_empty(), said, || format!("{key} is empty: write something"))?;
    ensure(!text.contains('\0'), said, || format!("{key} has a NUL in it: leave it out"))?;
    Ok(text.clone())
}

#[cfg(test)]
mod tests {
    use crate::scenario::Scenario;

    pub(super) const GPU: &str = "[[gpu]]\nmodel = \"T4\"\n";
    pub(super) const PROCESS: &str =
        "[[process]]\npid = 7\nname = \"p\"\ngpus = [0]\nmemory = \"1 GiB\"\n";

    /// What is said of a text.
    pub(super) fn complaint(text: &str) -> String {
        match Scenario::parse("test", text) {
            Ok(_) => format!("nothing wrong with\n{text}"),
            Err(complaint) => complaint.to_string(),
        }
    }

    #[test]
    fn the_least_that_makes_a_node() {
        let scenario = Scenario::parse("test", &format!("{GPU}{PROCESS}")).unwrap();
        assert_eq!((scenario.gpus.len(), scenario.processes.len(), scenario.hold), (1, 1, None));
        assert_eq!(scenario.driver.nvml, "12.550.54.15");
    }

    #[test]
    fn a_mistake_in_the_node_names_its_line_and_its_mend() {
        for (text, said) in [
            ("", "1: no GPU: add a [[gpu]] with a model"),
            ("now = -1\n", "1: no GPU: add a [[gpu]] with a model"),
            (&format!("now = -1\n{GPU}"), "1: now = -1: hold the clock at 0 to 100000 seconds"),
            (
                "[[gpu]]\nmodel = \"T5\"\n",
                "2: no model \"T5\", did you mean \"T4\"? the models are T4, L20, L40S, A100, \
                 H100, H200, B200, RTX 4090",
            ),
            ("[[gpu]]\nmodel = \"T4\"\ncount = 65\n", "3: more than 64 GPUs: leave some out"),
            ("[[gpu]]\nmodel = \"T4\"\ncount = 0\n", "3: count = 0: give 1 or more"),
            (
                "[[gpu]]\nmodel = \"T4\"\nuuid = \"GPU-1\"\n",
                "3: uuid = \"GPU-1\": write GPU- and a UUID in lower case hexadecimal",
            ),
            (
                "[[gpu]]\nmodel = \"T4\"\ncuont = 2\n",
                "3: unknown key \"cuont\", did you mean \"count\"? known here: model, count, uuid, \
                 serial, minor, pcie_replays_per_hour, ambient, lost, ecc, retired, remapped, \
                 nvlink, slowed, mig",
            ),
            ("[[gpu]]\ncount = 2\n", "1: the key \"model\" is missing: add it"),
            (
                &format!("{GPU}[driver]\ncuda = \"twelve\"\n"),
                "4: cuda = \"twelve\": write it like \"12.4\"",
            ),
            (
                &format!("{GPU}lost = [{{ from = 9, to = 9 }}]\n"),
                "3: lost: from 9 s to 9 s is no time: \"from\" must be before \"to\"",
            ),
            (
                &format!("{GPU}[[garbage]]\ngpu = 0\nrows = []\n"),
                "5: no rows: give at least one, or leave it out",
            ),
        ] {
            assert_eq!(complaint(text), said, "for\n{text}");
        }
    }
}
