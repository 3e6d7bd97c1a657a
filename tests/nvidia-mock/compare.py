"""Compares the exposition on NVIDIA's mock of NVML with the profiles that the mock has read."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

MILLI, MIB = 1e-3, 1 / 2**20
STATES = {"enabled": 1, "disabled": 0, "default": 0, True: 1, False: 0}

# The path in the profile, and the series with its value: converted by a factor, or by a function.
SERIES = {
    "clocks.sm_current": ("SM_CLOCK", 1),
    "clocks.memory_current": ("MEM_CLOCK", 1),
    "clocks.video_current": ("VIDEO_CLOCK", 1),
    "clocks.sm_max": ("MAX_SM_CLOCK", 1),
    "clocks.memory_max": ("MAX_MEM_CLOCK", 1),
    "clocks.video_max": ("MAX_VIDEO_CLOCK", 1),
    "clocks.graphics_app": ("APP_SM_CLOCK", 1),
    "clocks.memory_app": ("APP_MEM_CLOCK", 1),
    "thermal.temperature_gpu_c": ("GPU_TEMP", 1),
    "thermal.temperature_memory_c": ("MEMORY_TEMP", 1),
    "thermal.shutdown_threshold_c": ("SHUTDOWN_TEMP", 1),
    "thermal.slowdown_threshold_c": ("SLOWDOWN_TEMP", 1),
    "thermal.max_operating_c": ("GPU_MAX_OP_TEMP", 1),
    "power.current_draw_mw": ("POWER_USAGE", MILLI),
    "power.enforced_limit_mw": ("ENFORCED_POWER_LIMIT", MILLI),
    "power.default_limit_mw": ("POWER_MGMT_LIMIT_DEF", MILLI),
    "power.min_limit_mw": ("POWER_MGMT_LIMIT_MIN", MILLI),
    "power.max_limit_mw": ("POWER_MGMT_LIMIT_MAX", MILLI),
    "memory.total_bytes": ("FB_CAPACITY_BYTES", 1),
    "memory.reserved_bytes": ("FB_RESERVED_BYTES", 1),
    "memory.free_bytes": ("FB_FREE_BYTES", 1),
    "memory.used_bytes": ("FB_USED_BYTES", 1),
    "bar1_memory.total_bytes": ("BAR1_TOTAL", MIB),
    "bar1_memory.free_bytes": ("BAR1_FREE", MIB),
    "bar1_memory.used_bytes": ("BAR1_USED", MIB),
    "pcie.max_link_gen": ("PCIE_MAX_LINK_GEN", 1),
    "pcie.current_link_gen": ("PCIE_LINK_GEN", 1),
    "pcie.max_link_width": ("PCIE_MAX_LINK_WIDTH", 1),
    "pcie.current_link_width": ("PCIE_LINK_WIDTH", 1),
    "pcie.replay_counter": ("PCIE_REPLAY_COUNTER", 1),
    "performance_state": ("PSTATE", lambda state: int(state[1:])),
    "persistence_mode": ("PERSISTENCE_MODE", STATES.get),
    "compute_mode": ("COMPUTE_MODE", STATES.get),
    "mig.mode_current": ("MIG_MODE", STATES.get),
    "minor_number": ("MINOR_NUMBER", 1),
    "utilization.gpu": ("GPU_UTIL", 1),
    "utilization.memory": ("MEM_COPY_UTIL", 1),
    "utilization.encoder": ("ENC_UTIL", 1),
    "utilization.decoder": ("DEC_UTIL", 1),
    "ecc.mode_current": ("ECC_CURRENT", STATES.get),
    "ecc.mode_pending": ("ECC_PENDING", STATES.get),
    "ecc.errors.volatile.single_bit.total": ("ECC_SBE_VOL_TOTAL", 1),
    "ecc.errors.volatile.double_bit.total": ("ECC_DBE_VOL_TOTAL", 1),
    "ecc.errors.aggregate.single_bit.total": ("ECC_SBE_AGG_TOTAL", 1),
    "ecc.errors.aggregate.double_bit.total": ("ECC_DBE_AGG_TOTAL", 1),
    "retired_pages.single_bit_retirement.count": ("RETIRED_SBE", 1),
    "retired_pages.double_bit_retirement.count": ("RETIRED_DBE", 1),
    "remapped_rows.correctable": ("CORRECTABLE_REMAPPED_ROWS", 1),
    "remapped_rows.uncorrectable": ("UNCORRECTABLE_REMAPPED_ROWS", 1),
    "remapped_rows.pending": ("ROW_REMAP_PENDING", STATES.get),
    "remapped_rows.failure_occurred": ("ROW_REMAP_FAILURE", STATES.get),
    "fabric.clique_id": ("FABRIC_CLIQUE_ID", 1),
    "encoder_stats.session_count": ("DCGM_CUSTOM_DEV_ENC_SESSIONS", 1),
    "fbc_stats.session_count": ("DCGM_CUSTOM_DEV_FBC_SESSIONS", 1),
}
# Labels of every series of a GPU.
LABELS = {
    "name": "modelName",
    "serial": "DCGM_FI_DEV_SERIAL",
    "vbios_version": "DCGM_FI_DEV_VBIOS_VERSION",
    "fabric.cluster_uuid": "DCGM_FI_DEV_FABRIC_CLUSTER_UUID",
    "platform.chassis_serial_number": "DCGM_FI_DEV_PLATFORM_CHASSIS_SERIAL_NUMBER",
}
# The profiles are of idle GPUs, on which most values are 0: each is also played with these. The mock itself returns 0
# for encoders, decoders, replays and counts of retired pages, whatever the profile states.
BUSY = {
    "memory": {"free_bytes": 7 * 2**30, "used_bytes": 2 * 2**30},
    "bar1_memory": {"used_bytes": 5 * 2**20},
    "pcie": {"current_link_gen": 2, "current_link_width": 8},
    "performance_state": "P2",
    "persistence_mode": "disabled",
    "utilization": {"gpu": 57, "memory": 31},
    "ecc": {
        "errors": {
            "volatile": {"single_bit": {"total": 11}, "double_bit": {"total": 12}},
            "aggregate": {"single_bit": {"total": 13}, "double_bit": {"total": 14}},
        }
    },
    "remapped_rows": {"correctable": 5, "uncorrectable": 6, "pending": True, "failure_occurred": True},
    "encoder_stats": {"session_count": 3},
    "fbc_stats": {"session_count": 4},
}


def merged(defaults, device):
    """The keys of a device over the defaults."""
    if not isinstance(defaults, dict) or not isinstance(device, dict):
        return device
    return defaults | {key: merged(defaults.get(key), value) for key, value in device.items()}


def lookup(profile, path):
    """The value at a path, or `None`."""
    for key in path.split("."):
        profile = profile.get(key) if isinstance(profile, dict) else None
    return profile


def exposition(exporter, library, profile, counters):
    """Labels and value of all series, by family and UUID."""
    command = [exporter, "--once", "--require-gpu", f"--nvml-library={library}", f"-f={counters}", "--max-age=5000"]
    command.append("--dialect=dcgm-exporter")
    done = subprocess.run(command, env=os.environ | {"MOCK_NVML_CONFIG": str(profile)}, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{profile}: {done.stderr}")
    series = {}
    for name, text, value in re.findall(r"^(\w+)\{(.*)\} (\S+)$", done.stdout, re.MULTILINE):
        labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
        series.setdefault((name, labels.get("UUID")), []).append((labels, float(value)))
    return series


def problems(profile, series):
    """What differs from the profile, and the number of compared cells."""
    found, compared = [], 0
    for device in profile["devices"]:
        gpu = merged(profile["device_defaults"], device)
        uuid = gpu["uuid"]
        for path, (name, convert) in SERIES.items():
            name = name if name.startswith("DCGM_") else f"DCGM_FI_DEV_{name}"
            raw = lookup(gpu, path)
            if raw is None or (path.startswith("ecc") and lookup(gpu, "ecc.mode_current") != "enabled"):
                continue
            expected = convert(raw) if callable(convert) else raw * convert
            values = [value for _, value in series.get((name, uuid), [])]
            compared += 1
            if len(values) != 1 or abs(values[0] - expected) > 1e-6 * max(1, abs(expected)):
                found.append(f"{uuid}: {name} is {values}, but {path} is {raw}")
        for path, label in LABELS.items():
            expected = lookup(gpu, path)
            if expected is None:
                continue
            compared += 1
            values = {labels.get(label) for labels, _ in series.get(("DCGM_FI_DEV_GPU_TEMP", uuid), [])}
            if values != {str(expected)}:
                found.append(f"{uuid}: label {label} is {values}, but {path} is {expected}")
        links = lookup(profile, "nvlink.links_per_gpu") if lookup(profile, "nvlink.switches") else None
        states = [value for _, value in series.get(("DCGM_FI_DEV_NVLINK_GET_STATE", uuid), [])]
        compared += 1
        if links is not None and states != [1] * links:
            found.append(f"{uuid}: {links} links have the states {states}")
        if lookup(gpu, "fan.speed_percent") == "N/A" and ("DCGM_FI_DEV_FAN_SPEED", uuid) in series:
            found.append(f"{uuid}: a board without fans has a fan speed")
        for labels, count in series.get(("nvml_exporter_gpu_missing_readings", uuid), []):
            if labels["reason"] not in ("unsupported", "pending"):
                found.append(f"{uuid}: {count:.0f} readings are missing: {labels['reason']}")
    return found, compared


def main(exporter, mock):
    """Compares every profile; fails on any difference."""
    rows = json.loads(subprocess.run([exporter, "--print-metrics=json"], capture_output=True, text=True, check=True).stdout)
    failed = 0
    with tempfile.NamedTemporaryFile("w", suffix=".csv") as counters:
        for row in rows:
            if row["scope"] != "exporter":
                kind = "label" if row["scope"] == "label" else row["type"]
                counters.write(f"{row['name']}, {kind},\n")
        counters.flush()
        for path in sorted((mock / "configs").glob("mock-nvml-config-*.yaml")):
            profile = yaml.safe_load(path.read_text(encoding="utf-8"))
            if "device_defaults" not in profile:
                continue
            busy = profile | {"device_defaults": merged(profile["device_defaults"], BUSY)}
            for state, played in {"idle": profile, "busy": busy}.items():
                with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                    # JSON is YAML; PyYAML would write serial numbers that Go reads as numbers.
                    json.dump(played, file)
                    file.flush()
                    series = exposition(exporter, mock / "libnvidia-ml.so.1", file.name, counters.name)
                found, compared = problems(played, series)
                failed += len(found)
                print(f"{path.name}, {state}: {compared} cells compared, {len(found)} differ", *found, sep="\n  ")
    sys.exit(min(failed, 1))


main(sys.argv[1], pathlib.Path(sys.argv[2]))
