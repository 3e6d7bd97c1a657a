//! Validation: converts the TOML tables of a file into a scenario.

mod cluster;
mod curves;
mod faults;
mod gpus;
mod hardware;
mod identity;
mod memory;
mod mig;
mod mig_instances;
mod pipes;
mod processes;
mod values;
mod windows;

#[cfg(test)]
mod test_scenario;

use std::sync::Arc;

use toml::Spanned;

use crate::{
    driver_branches,
    exported_functions::FUNCTIONS,
    fault::InjectedFault,
    scenario::{CgroupView, Driver, InjectedSamples, Platform, Scenario},
    scenario_file::{
        error::{SpannedError, ValidationResult, ensure},
        tables::{DriverTable, InjectedSamplesTable, ScenarioTable, recording},
        validate::{
            values::ensure_gpu_exists,
            windows::{parse_window, windows},
        },
    },
    window::Window,
};

/// Latest time in seconds at which a scenario may hold its clock: advancing to a later time would take
/// too long for the calling thread.
const MAX_HOLD: f64 = 100_000.0;

/// Validates the whole file; `seed` is the name of the scenario.
pub(super) fn check(seed: &str, file: &ScenarioTable) -> ValidationResult<Scenario> {
    let platform = platform(file.platform.as_ref())?;
    let recording = recording(&file.answers)?;
    let mut gpus = if recording.is_some() {
        gpus::check_none(&file.gpu)?
    } else {
        gpus::check(seed, &file.gpu, platform)?
    };
    let cluster = cluster::check(seed, file, &gpus)?;
    for gpu in &mut gpus {
        gpu.exclusive_process = cluster.as_ref().is_some_and(|one| one.uses_mps(gpu.index));
    }
    let processes = processes::check(&file.process, &mut gpus, cluster.as_deref())?;
    let count = gpus.len();
    let mut driver = driver(&file.driver)?;
    if platform == Platform::NoGpu {
        driver.reloads = vec![Window::ALWAYS];
    }
    let faults = file.fault.iter().map(|table| faults::check(table, count));
    let missing = missing_symbols(&file.driver, driver.branch(), recording.is_some())?;
    let missing = missing.into_iter().map(InjectedFault::missing);
    let faults = faults.chain(missing.map(Ok)).collect::<ValidationResult<_>>()?;
    Ok(Scenario {
        held_at: hold(file.now.as_ref())?,
        in_container: in_container(file.pid_namespace.as_ref())?,
        cgroup_view: cgroup_view(file.cgroup_namespace.as_ref())?,
        platform,
        driver,
        injected_samples: file
            .garbage
            .iter()
            .map(|table| garbage(table, count))
            .collect::<ValidationResult<_>>()?,
        faults,
        xids: hardware::xids(&file.xid, count)?,
        gpus,
        processes,
        recording: recording.map(Arc::new),
        cluster,
    })
}

/// The symbols that the library lacks: those of a recording, or those that its branch lacks.
fn missing_symbols(
    table: &DriverTable,
    branch: u32,
    is_recording: bool,
) -> ValidationResult<Vec<&'static str>> {
    let named = table.missing.iter().map(faults::symbol);
    let named = named.collect::<ValidationResult<Vec<_>>>()?;
    if is_recording {
        return Ok(named);
    }
    let of_branch = driver_branches::missing_symbols(branch, FUNCTIONS);
    Ok(of_branch.filter(|name| !named.contains(name)).chain(named.iter().copied()).collect())
}

fn hold(now: Option<&Spanned<f64>>) -> ValidationResult<Option<f64>> {
    now.map(|now| {
        let time = *now.get_ref();
        let error = || format!("now = {time} is out of range: write 0 to {MAX_HOLD} seconds");
        ensure((0.0..=MAX_HOLD).contains(&time), now, error)?;
        Ok(time)
    })
    .transpose()
}

fn in_container(namespace: Option<&Spanned<String>>) -> ValidationResult<bool> {
    let Some(value) = namespace else { return Ok(false) };
    match value.get_ref().as_str() {
        "host" => Ok(false),
        "container" => Ok(true),
        other => Err(SpannedError::new(
            value.span(),
            format!("pid_namespace = \"{other}\" is unknown: write \"host\" or \"container\""),
        )),
    }
}

fn cgroup_view(namespace: Option<&Spanned<String>>) -> ValidationResult<CgroupView> {
    let Some(value) = namespace else { return Ok(CgroupView::default()) };
    match value.get_ref().as_str() {
        "host" => Ok(CgroupView::Host),
        "private" => Ok(CgroupView::Private),
        "mounted" => Ok(CgroupView::Mounted),
        other => Err(SpannedError::new(
            value.span(),
            format!(
                "cgroup_namespace = \"{other}\" is unknown: write \"host\", \"private\" or \"mounted\""
            ),
        )),
    }
}

fn platform(platform: Option<&Spanned<String>>) -> ValidationResult<Platform> {
    let Some(value) = platform else { return Ok(Platform::default()) };
    match value.get_ref().as_str() {
        "pci" => Ok(Platform::Pci),
        "tegra" => Ok(Platform::Tegra),
        "no-gpu" => Ok(Platform::NoGpu),
        other => Err(SpannedError::new(
            value.span(),
            format!("platform = \"{other}\" is unknown: write \"pci\", \"tegra\" or \"no-gpu\""),
        )),
    }
}

fn driver(table: &DriverTable) -> ValidationResult<Driver> {
    let version = version("version", table.version.as_ref(), "550.54.15")?;
    let mut driver = Driver { version, nvml: String::new(), cuda: 0, reloads: vec![] };
    let cuda = match &table.cuda {
        None => driver_branches::cuda_version(driver.branch()),
        Some(value) => cuda(value.get_ref()).ok_or_else(|| {
            let text =
                format!("cuda = \"{}\" is not a version: write it like \"12.4\"", value.get_ref());
            SpannedError::new(value.span(), text)
        })?,
    };
    let nvml = format!("{}.{}", cuda / 1_000, driver.version);
    driver.nvml = self::version("nvml", table.nvml.as_ref(), &nvml)?;
    driver.cuda = cuda;
    driver.reloads = windows("reload", &table.reload)?;
    Ok(driver)
}

fn version(key: &str, value: Option<&Spanned<String>>, default: &str) -> ValidationResult<String> {
    let Some(value) = value else { return Ok(default.to_owned()) };
    let text = value.get_ref();
    let valid = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    ensure(valid, value, || format!("{key} = \"{text}\" is not a version: write digits and dots"))?;
    Ok(text.clone())
}

/// Parses `12.4` into 1000 × major + 10 × minor.
fn cuda(version: &str) -> Option<i32> {
    let (major, minor) = version.split_once('.')?;
    let (major, minor): (i32, i32) = (major.parse().ok()?, minor.parse().ok()?);
    ((1..1_000).contains(&major) && (0..100).contains(&minor)).then_some(1_000 * major + 10 * minor)
}

fn garbage(table: &InjectedSamplesTable, gpus: usize) -> ValidationResult<InjectedSamples> {
    ensure_gpu_exists(&table.gpu, gpus)?;
    let rows = table.rows.get_ref();
    ensure(!rows.is_empty(), &table.rows, || {
        "rows is empty: write at least one row or remove the table".into()
    })?;
    let finite = rows.iter().all(|row| row.age.is_finite());
    ensure(finite, &table.rows, || "an age is out of range: write finite seconds".into())?;
    let during = parse_window(table.from.as_ref(), table.to.as_ref())?;
    Ok(InjectedSamples { gpu: *table.gpu.get_ref(), during, rows: rows.clone() })
}

#[cfg(test)]
mod tests {
    use crate::{
        scenario::Scenario,
        scenario_file::validate::test_scenario::{GPU, PROCESS, error_of},
    };

    #[test]
    fn minimal_scenario_has_defaults() {
        let scenario = Scenario::parse("test", &format!("{GPU}{PROCESS}")).unwrap();
        assert_eq!((scenario.gpus.len(), scenario.processes.len(), scenario.held_at), (1, 1, None));
        assert_eq!(scenario.driver.nvml, "12.550.54.15");
    }

    #[test]
    fn errors_in_node_tables_have_line_reason_and_remedy() {
        for (text, expected) in [
            ("", "1: the scenario has no GPU: add a [[gpu]] table with a model"),
            ("now = -1\n", "1: the scenario has no GPU: add a [[gpu]] table with a model"),
            (
                &format!("platform = \"arm\"\n{GPU}"),
                "1: platform = \"arm\" is unknown: write \"pci\", \"tegra\" or \"no-gpu\"",
            ),
            (
                &format!("platform = \"no-gpu\"\n{GPU}"),
                "2: a node without GPUs has a GPU: remove the [[gpu]] table or the platform",
            ),
            (&format!("now = -1\n{GPU}"), "1: now = -1 is out of range: write 0 to 100000 seconds"),
            (
                "[[gpu]]\nmodel = \"T5\"\n",
                "2: unknown model \"T5\", did you mean \"T4\"? the models are T4, L20, L40S, A10, \
                 A100, RTX 4090, H100, H200, H20, B200, GB200, GB300, RTX PRO 6000, RTX 5090, GB10, \
                 Thor, VR200",
            ),
            (
                "[[gpu]]\nmodel = \"T4\"\ncount = 65\n",
                "3: the scenario has more than 64 GPUs: remove some",
            ),
            (
                "[[gpu]]\nmodel = \"T4\"\ncount = 0\n",
                "3: count = 0 is out of range: write 1 or more",
            ),
            (
                "[[gpu]]\nmodel = \"T4\"\nuuid = \"GPU-1\"\n",
                "3: uuid = \"GPU-1\" is not a GPU UUID: write GPU- and a UUID in lower-case hexadecimal",
            ),
            (
                "[[gpu]]\nmodel = \"T4\"\ncuont = 2\n",
                "3: unknown key \"cuont\", did you mean \"count\"? the keys here are model, count, uuid, \
                 serial, minor, pcie_replays_per_hour, ambient, power_limit, \
                 memory_total, memory_limits, lost, ecc, retired, remapped, repair, c2c, nvlink, slowed, samples, mig",
            ),
            ("[[gpu]]\ncount = 2\n", "1: missing key \"model\": add it"),
            (
                &format!("{GPU}[driver]\ncuda = \"twelve\"\n"),
                "4: cuda = \"twelve\" is not a version: write it like \"12.4\"",
            ),
            (
                &format!("{GPU}lost = [{{ from = 9, to = 9 }}]\n"),
                "3: lost: from 9 s to 9 s is empty: write a \"from\" before \"to\"",
            ),
            (
                &format!("{GPU}[[garbage]]\ngpu = 0\nrows = []\n"),
                "5: rows is empty: write at least one row or remove the table",
            ),
        ] {
            assert_eq!(error_of(text), expected, "for\n{text}");
        }
    }
}
