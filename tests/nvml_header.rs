//! Compares structs, signatures and numbers with NVIDIA's headers, which `tests/run` downloads.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and starts programs"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use mock_nvml::header as mock;
use nvml_exporter::catalog::DEVICE;
use nvml_exporter::nvml::field_numbering::FieldNumbering;
use nvml_exporter::nvml::raw::newer;

/// Headers, each with a driver of its time, oldest first.
const HEADERS: [(&str, &str); 10] = [
    ("12.4.127", "550.54.15"),
    ("12.8.90", "570.148.08"),
    ("12.9.79", "575.57.08"),
    ("13.0.39", "580.65.06"),
    ("13.0.87", "580.95.05"),
    ("13.1.115", "590.44.01"),
    ("13.2.86", "595.45.04"),
    ("13.3.29", "610.43.02"),
    ("13.4.92", "615.36"),
    ("13.5.37", "615.71"),
];
const NEWEST: &str = HEADERS[HEADERS.len() - 1].0;

fn directory(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/headers").join(version)
}

fn header(version: &str) -> String {
    let path = directory(version).join("nvml.h");
    let bytes = fs::read(&path);
    let bytes = bytes.unwrap_or_else(|e| panic!("{}: {e}; tests/run downloads it", path.display()));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Names of the functions that a header declares.
fn functions(text: &str) -> BTreeSet<&str> {
    let declared = text.split("DECLDIR ").skip(1);
    declared.filter_map(|rest| rest.trim_start().split('(').next()).collect()
}

/// Numbers of the fields that a header defines.
fn fields<'a>(text: &'a str) -> BTreeMap<&'a str, u32> {
    let define = |line: &'a str| {
        let mut words = line.strip_prefix("#define ")?.split_whitespace();
        let (name, number) = (words.next()?, words.next()?.parse().ok()?);
        let is_field = name.starts_with("NVML_FI_DEV_") || name.starts_with("NVML_FI_PWR_");
        is_field.then_some((name, number))
    };
    text.lines().filter_map(define).collect()
}

/// The output of a C program that includes the newest header.
fn run_c(body: &str) -> String {
    let work = tempfile::tempdir().unwrap();
    let (source, program) = (work.path().join("check.c"), work.path().join("check"));
    let text = format!(
        "#include <nvml.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {{\n{body}return 0;\n}}\n"
    );
    fs::write(&source, &text).unwrap();
    let include = directory(NEWEST);
    let compiled = Command::new("cc")
        .args(["-std=gnu11", "-w", "-I"])
        .arg(&include)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{text}\n{}", String::from_utf8_lossy(&compiled.stderr));
    String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap()
}

/// A struct: its name in C, its size, and the names in C and offsets of its members.
type Layout = (&'static str, usize, Vec<(&'static str, usize)>);

macro_rules! layout {
    ($type:ty as $name:literal { $($member:ident as $c:literal),* $(,)? }) => {
        ($name, size_of::<$type>(), vec![$(($c, offset_of!($type, $member))),*])
    };
}

/// The structs of the exporter and of the mock that nvml-wrapper-sys does not have.
fn layouts() -> Vec<Layout> {
    macro_rules! both {
        ($($from:path),*) => {{
            let mut all: Vec<Layout> = Vec::new();
            $({
                use $from as from;
                all.push(layout!(from::UnrepairableMemoryStatus as "nvmlUnrepairableMemoryStatus_v1_t" {
                    unrepairable as "bUnrepairableMemory",
                }));
                all.push(layout!(from::FabricClique as "nvmlGpuFabricClique_v1_t" {
                    kind as "type", id as "id",
                }));
                all.push(layout!(from::FabricInfo as "nvmlGpuFabricInfo_v4_t" {
                    cluster_uuid as "clusterUuid", status as "status", cliques as "cliques",
                    clique_count as "numCliques", state as "state", health_mask as "healthMask",
                    health_summary as "healthSummary",
                }));
                all.push(layout!(from::MemoryLimits as "nvmlGetMemoryLimits_v1_t" {
                    cgroup as "nameSpace", soft as "softLimit", hard as "hardLimit",
                    used as "currentUsed",
                }));
            })*
            all
        }};
    }
    both!(newer, mock)
}

#[test]
fn structs_have_the_layout_of_the_header() {
    let layouts = layouts();
    let (mut body, mut expected) = (String::new(), String::new());
    for (name, size, members) in &layouts {
        writeln!(body, "printf(\"{name} %zu\\n\", sizeof({name}));").unwrap();
        writeln!(expected, "{name} {size}").unwrap();
        for (member, offset) in members {
            writeln!(body, "printf(\"{name}.{member} %zu\\n\", offsetof({name}, {member}));")
                .unwrap();
            writeln!(expected, "{name}.{member} {offset}").unwrap();
        }
    }
    assert_eq!(run_c(&body), expected);
}

/// Of versioned structs, size and version are in their first member.
#[test]
fn versions_are_those_of_the_header() {
    use nvml_wrapper_sys::bindings as sys;
    let tag = |size: usize, version: usize| size | (version << 24);
    let tags = [
        ("nvmlMemory_v2", tag(size_of::<sys::nvmlMemory_v2_t>(), 2)),
        ("nvmlTemperature_v1", tag(size_of::<sys::nvmlTemperature_v1_t>(), 1)),
        ("nvmlMarginTemperature_v1", tag(size_of::<sys::nvmlMarginTemperature_v1_t>(), 1)),
        ("nvmlRepairStatus_v1", tag(size_of::<sys::nvmlRepairStatus_v1_t>(), 1)),
        ("nvmlPlatformInfo_v2", tag(size_of::<sys::nvmlPlatformInfo_v2_t>(), 2)),
        ("nvmlEccSramErrorStatus_v1", tag(size_of::<sys::nvmlEccSramErrorStatus_v1_t>(), 1)),
        ("nvmlGpuFabricInfo_v2", tag(size_of::<sys::nvmlGpuFabricInfo_v2_t>(), 2)),
        ("nvmlGpuFabricInfo_v3", tag(size_of::<sys::nvmlGpuFabricInfo_v3_t>(), 3)),
        (
            "nvmlWorkloadPowerProfileCurrentProfiles_v1",
            tag(size_of::<sys::nvmlWorkloadPowerProfileCurrentProfiles_v1_t>(), 1),
        ),
    ];
    let (mut body, mut expected) = (String::new(), String::new());
    for (name, tag) in tags {
        writeln!(body, "printf(\"{name} %u\\n\", (unsigned int)({name}));").unwrap();
        writeln!(expected, "{name} {tag}").unwrap();
    }
    assert_eq!(run_c(&body), expected);
}

#[test]
fn newer_functions_have_the_signature_of_the_header() {
    let functions = [
        ("nvmlDeviceGetUnrepairableMemoryFlag_v1", "nvmlUnrepairableMemoryStatus_v1_t"),
        ("nvmlDeviceGetGpuFabricInfo_v4", "nvmlGpuFabricInfo_v4_t"),
        ("nvmlDeviceGetMemoryLimits_v1", "nvmlGetMemoryLimits_v1_t"),
    ];
    let mut body = String::new();
    for (function, written) in functions {
        writeln!(
            body,
            "_Static_assert(__builtin_types_compatible_p(__typeof__(&{function}), \
             nvmlReturn_t (*)(nvmlDevice_t, {written} *)), \"{function}\");"
        )
        .unwrap();
    }
    assert_eq!(run_c(&body), "");
}

/// The numbers that rows have are those of the newest header, and each driver is asked with its own.
#[test]
fn fields_are_asked_by_the_number_of_each_driver() {
    let newest = header(NEWEST);
    let newest = fields(&newest);
    for (name, number) in [
        ("NVML_FI_PWR_SMOOTHING_ENABLED", 251),
        ("NVML_FI_PWR_SMOOTHING_ADMIN_OVERRIDE_RAMP_DOWN_HYST_VAL", 268),
        ("NVML_FI_DEV_CLOCKS_EVENT_REASON_SW_THERM_SLOWDOWN", 269),
        ("NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_THERM_SLOWDOWN", 270),
        ("NVML_FI_DEV_CLOCKS_EVENT_REASON_HW_POWER_BRAKE_SLOWDOWN", 271),
        ("NVML_FI_DEV_MMA_STALL_PERCENT", 297),
        ("NVML_FI_DEV_REMAPPED_ROWS_COR_INACTIVE", 301),
        ("NVML_FI_DEV_REMAPPED_ROWS_UNC_INACTIVE", 302),
        ("NVML_FI_DEV_ACTIVE_BANK_REMAPPINGS", 303),
        ("NVML_FI_DEV_INACTIVE_BANK_REMAPPINGS", 304),
        ("NVML_FI_DEV_BANK_REMAPPER_HISTOGRAM_MAX", 305),
        ("NVML_FI_DEV_BANK_REMAPPER_HISTOGRAM_NONE", 306),
        ("NVML_FI_DEV_PENDING_BANK_REMAPPING", 307),
        ("NVML_FI_PWR_SMOOTHING_LIMITED_TIME", 309),
    ] {
        assert_eq!(newest.get(name), Some(&number), "{name}");
    }
    for (version, driver) in HEADERS {
        let text = header(version);
        let numbering = FieldNumbering::of(driver);
        for (name, number) in fields(&text) {
            let Some(row) = newest.get(name) else { continue };
            assert_eq!(numbering.number(*row), Some(number), "{name} of driver {driver}");
        }
    }
}

/// The metrics of each NVLink of which there is a row are those of the newest header.
#[test]
fn metrics_of_links_have_the_number_of_the_header() {
    let text = header(NEWEST);
    let rows: BTreeMap<&str, u32> = DEVICE
        .iter()
        .filter_map(|row| Some((row.name, row.source.gpm()?)))
        .filter(|(name, _)| name.starts_with("DCGM_FI_PROF_NVLINK_L"))
        .collect();
    let metric = |line: &str| {
        let (name, rest) = line.trim().strip_prefix("NVML_GPM_METRIC_NVLINK_L")?.split_once('=')?;
        let name = name.trim().strip_suffix("_PER_SEC")?;
        let number: u32 = rest.split(',').next()?.trim().parse().ok()?;
        Some((format!("DCGM_FI_PROF_NVLINK_L{name}_BYTES"), number))
    };
    let of_header: BTreeMap<String, u32> = text.lines().filter_map(metric).collect();
    assert_eq!(of_header.len(), 2 * 72);
    assert!(
        of_header.iter().map(|(name, number)| (name.as_str(), *number)).eq(rows),
        "{of_header:?}"
    );
}

#[test]
fn mock_has_the_fields_and_symbols_of_each_header() {
    let newest = header(NEWEST);
    let (all_functions, all_fields) = (functions(&newest), fields(&newest));
    let last: BTreeMap<u32, (&str, &str)> =
        HEADERS.iter().map(|(version, driver)| (branch(driver), (*version, *driver))).collect();
    for (branch, (version, driver)) in last {
        let text = header(version);
        let (functions, fields) = (functions(&text), fields(&text));
        // The mock also exports old versions of functions, which headers only mention.
        for (name, exists) in
            mock::functions(branch).filter(|(name, _)| all_functions.contains(name))
        {
            assert_eq!(exists, functions.contains(name), "{name} of branch {branch}");
        }
        for (name, newest) in &all_fields {
            let known = fields.get(name).and_then(|number| mock::canonical(driver, *number));
            assert_eq!(known, fields.get(name).map(|_| *newest), "{name} of driver {driver}");
        }
        let numbers: BTreeSet<u32> = fields.values().copied().collect();
        let known = (1..400).filter(|number| mock::canonical(driver, *number).is_some());
        // Two fields of branch 545 are not in the header of CUDA 12.4.
        let extra: Vec<u32> = known.filter(|number| !numbers.contains(number)).collect();
        assert!(
            extra.iter().all(|number| [197, 198, 199, 200].contains(number)),
            "{driver}: {extra:?}"
        );
    }
}

fn branch(driver: &str) -> u32 {
    driver.split('.').next().unwrap().parse().unwrap()
}
