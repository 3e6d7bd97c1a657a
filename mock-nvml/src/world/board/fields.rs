//! The fields of `nvmlDeviceGetFieldValues`.

use crate::{
    fault::{self, Effect, Substitute},
    field_ids,
    numeric::{floor_u32, round_u32},
    return_code::{NvmlResult, ReturnCode},
    world::board::{
        Board,
        links::{ALL_LINKS, Direction, LinkError},
    },
};

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldValue {
    /// `unsigned int`
    U32(u32),
    /// `unsigned long long`
    U64(u64),
    /// `int`
    I32(i32),
}

impl FieldValue {
    /// The value with all bits set; unchanged if signed, where -1 is a valid value.
    fn all_bits_set(self) -> Self {
        match self {
            Self::U32(_) => Self::U32(u32::MAX),
            Self::U64(_) => Self::U64(u64::MAX),
            Self::I32(number) => Self::I32(number),
        }
    }
}

/// `nvmlNvlinkVersion_t` of NVLink 5, which has more counters.
const NVLINK_5: u32 = 7;
/// Bandwidth of a C2C link in MB/s.
const C2C_SPEED: u32 = 450_000;
/// `NVML_FI_DEV_ECC_SBE_VOL_L1` and following: error type, counter type and memory location.
const ECC_LOCATIONS: [(u32, u32, u32); 22] = [
    (0, 0, 0),
    (1, 0, 0),
    (0, 0, 1),
    (1, 0, 1),
    (0, 0, 2),
    (1, 0, 2),
    (0, 0, 3),
    (1, 0, 3),
    (0, 0, 4),
    (1, 0, 4),
    (1, 0, 6),
    (0, 1, 0),
    (1, 1, 0),
    (0, 1, 1),
    (1, 1, 1),
    (0, 1, 2),
    (1, 1, 2),
    (0, 1, 3),
    (1, 1, 3),
    (0, 1, 4),
    (1, 1, 4),
    (1, 1, 6),
];

impl Board {
    /// The value of a field. `scope` selects an NVLink, or all of them, for fields that have a
    /// scope.
    ///
    /// # Errors
    /// The return code of this field.
    pub(crate) fn field(&self, field: u32, scope: u32) -> NvmlResult<FieldValue> {
        let faults = &self.scenario.faults;
        match fault::field_fault(faults, field, self.gpu.index, self.now.world) {
            Some(Effect::Code(code)) => return Err(code),
            Some(Effect::Substitute(Substitute::AllBitsSet)) => {
                return self.true_field(field, scope).map(FieldValue::all_bits_set);
            }
            Some(
                Effect::Substitute(Substitute::NoRows | Substitute::Number(_))
                | Effect::Delay(_)
                | Effect::Hang
                | Effect::Missing,
            )
            | None => {}
        }
        self.true_field(field, scope)
    }

    fn true_field(&self, field: u32, scope: u32) -> NvmlResult<FieldValue> {
        let field = field_ids::canonical(&self.scenario.driver.version, field)
            .ok_or(ReturnCode::INVALID_ARGUMENT)?;
        match field {
            1..=31 | 92 | 93 | 142..=145 | 301 | 302 => self.memory_field(field),
            32..=73 | 84..=91 | 96..=141 | 146..=168 | 201..=222 | 235..=250 => {
                self.nvlink_field(field, scope)
            }
            74..=81 | 269..=271 => self.violation_field(field),
            83 | 82 | 185..=196 => self.power_field(field),
            // 173: a replay corrects an error.
            94 | 173 => Ok(FieldValue::U32(self.replays())),
            // No replay counter rolls over.
            95 => Ok(FieldValue::U32(0)),
            170..=172 | 231..=234 => self.c2c_field(field, scope),
            197 => Ok(FieldValue::U64(self.pcie_traffic(Direction::Tx))),
            198 => Ok(FieldValue::U64(self.pcie_traffic(Direction::Rx))),
            230 => Ok(FieldValue::U32(self.recovery_action())),
            251..=268 | 297 | 309 => self.power_smoothing_field(field),
            303..=307 => self.bank_remapping_field(field),
            _ => Err(ReturnCode::NOT_SUPPORTED),
        }
    }

    fn memory_field(&self, field: u32) -> NvmlResult<FieldValue> {
        let u32 = |value: NvmlResult<u32>| value.map(FieldValue::U32);
        let u64 = |value: NvmlResult<u64>| value.map(FieldValue::U64);
        match field {
            1 | 2 => u32(self.ecc().map(u32::from)),
            3..=6 => u64(self.ecc_errors((field - 3) % 2, (field - 3) / 2)),
            7..=28 => {
                let at = usize::try_from(field - 7).ok().and_then(|at| ECC_LOCATIONS.get(at));
                let (kind, counter, location) = at.copied().ok_or(ReturnCode::NOT_SUPPORTED)?;
                u64(self.ecc_errors_at(kind, counter, location))
            }
            29 => u32(self.retired().map(|retired| retired.sbe)),
            30 => u32(self.retired().map(|retired| retired.dbe)),
            31 => u32(self.retired().map(|retired| u32::from(retired.pending))),
            92 | 93 => u32(self.retired().map(|_| 0)),
            142 => u32(self.remapped().map(|rows| rows.correctable)),
            143 => u32(self.remapped().map(|rows| rows.uncorrectable)),
            144 => u32(self.remapped().map(|rows| u32::from(rows.pending))),
            145 => u32(self.remapped().map(|rows| u32::from(rows.failure))),
            // Every remapping is in use.
            301 | 302 => u32(self.remapped().map(|_| 0)),
            _ => Err(ReturnCode::NOT_SUPPORTED),
        }
    }

    fn nvlink_field(&self, field: u32, scope: u32) -> NvmlResult<FieldValue> {
        let links = self.nvlinks()?;
        if let Some((error, link)) = error_of_link(field) {
            if link != ALL_LINKS && link >= links.count {
                return Err(ReturnCode::NOT_SUPPORTED);
            }
            return self.nvlink_errors(link, error).map(FieldValue::U64);
        }
        let active = |link| self.nvlink_active(link);
        match field {
            _ if field > 200 && links.version < NVLINK_5 => Err(ReturnCode::NOT_SUPPORTED),
            // Bandwidth of a link in one direction, 0 if it is down.
            84..=89 if active(field - 84)? => Ok(FieldValue::U32(links.speed)),
            132..=137 if active(field - 126)? => Ok(FieldValue::U32(links.speed)),
            84..=89 | 132..=137 => Ok(FieldValue::U32(0)),
            90 => Ok(FieldValue::U32(links.speed)),
            91 | 147 => Ok(FieldValue::U32(links.count)),
            // 235: blocks without errors.
            138 | 139 | 235 => self.nvlink_traffic(scope).map(FieldValue::U64),
            // Raw throughput: one eighth of protocol overhead is added.
            140 | 141 => self.nvlink_traffic(scope).map(|kib| FieldValue::U64(kib + kib / 8)),
            161 => self.nvlink_errors(scope, LinkError::Replay).map(FieldValue::U64),
            162 | 213 | 215 => self.nvlink_errors(scope, LinkError::Recovery).map(FieldValue::U64),
            163 => {
                let flits = self.nvlink_errors(scope, LinkError::Flit)?;
                let data = self.nvlink_errors(scope, LinkError::Data)?;
                Ok(FieldValue::U64(flits + data))
            }
            164 => active(scope).map(|up| FieldValue::U32(if up { links.speed } else { 0 })),
            165 => active(scope).map(|up| FieldValue::U32(u32::from(up))),
            166 => self.nvlink(scope).map(|links| FieldValue::U32(links.version)),
            202 | 204 => self.nvlink_traffic(scope).map(|kib| FieldValue::U64(kib * 1_024)),
            // Packets of 256 bytes.
            201 | 203 => self.nvlink_traffic(scope).map(|kib| FieldValue::U64(kib * 4)),
            206..=212 => self.nvlink_errors(scope, LinkError::Packet).map(FieldValue::U64),
            205 | 214 => self.nvlink_errors(scope, LinkError::Ecc).map(|_| FieldValue::U64(0)),
            219 => self.nvlink_errors(scope, LinkError::Effective).map(FieldValue::U64),
            // 236: each symbol error is in a block of its own.
            221 | 236 => self.nvlink_errors(scope, LinkError::Symbol).map(FieldValue::U64),
            220 => self.bit_error_rate(scope, LinkError::Effective),
            222 => self.bit_error_rate(scope, LinkError::Symbol),
            237..=250 => self.nvlink(scope).map(|_| FieldValue::U64(0)),
            _ => Err(ReturnCode::NOT_SUPPORTED),
        }
    }

    /// 15e-255 without errors, as real links report it, and 3e-12 with errors: mantissa in the bits 8 to 11,
    /// negative exponent in the bits 0 to 7.
    fn bit_error_rate(&self, link: u32, error: LinkError) -> NvmlResult<FieldValue> {
        self.nvlink(link)?;
        Ok(FieldValue::U64(if self.nvlink_errors(link, error)? > 0 { 0x30C } else { 0xFFF }))
    }

    fn c2c_field(&self, field: u32, link: u32) -> NvmlResult<FieldValue> {
        let links = self.model().extras.c2c_links;
        if field == 170 {
            return Ok(FieldValue::U32(links));
        }
        if link >= links {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        match field {
            171 => Ok(FieldValue::U32(u32::from(self.c2c_active(link)))),
            172 => Ok(FieldValue::U32(C2C_SPEED)),
            231..=233 => Ok(FieldValue::U64(self.c2c_errors())),
            234 => Ok(FieldValue::U32(0)),
            _ => Err(ReturnCode::NOT_SUPPORTED),
        }
    }

    /// Power smoothing is on, with preset profile 1 of 5 and overrides.
    fn power_smoothing_field(&self, field: u32) -> NvmlResult<FieldValue> {
        if !self.model().extras.power_smoothing {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let limit = self.power_limit() / 1_000;
        Ok(FieldValue::U32(match field {
            251 | 252 | 264 => 1,
            253 => 0,
            254 => limit,
            255 => limit * 3 / 10,
            256 => 90,
            257 => 10,
            258 => 98,
            259 => 5,
            260 => 30,
            261 | 262 => 50_000,
            263 => 1_000,
            265 => 25,
            266 | 267 => 40_000,
            268 => 500,
            297 => self.utilization().0 / 4,
            _ => return Ok(FieldValue::U64(0)),
        }))
    }

    /// One group of banks has used its spare bank.
    fn bank_remapping_field(&self, field: u32) -> NvmlResult<FieldValue> {
        if !self.model().extras.bank_remapping {
            return Err(ReturnCode::NOT_SUPPORTED);
        }
        let groups = self.spare_rows()?.max / 64;
        Ok(FieldValue::U32(match field {
            303 | 306 => 1,
            305 => groups - 1,
            _ => 0,
        }))
    }

    fn violation_field(&self, field: u32) -> NvmlResult<FieldValue> {
        let policy = match field {
            // Thermal slowdown is by software.
            269 => 1,
            270 | 271 => return self.violation(1).map(|_| FieldValue::U64(0)),
            74..=79 => field - 74,
            _ => field - 70,
        };
        self.violation(policy).map(FieldValue::U64)
    }

    fn power_field(&self, field: u32) -> NvmlResult<FieldValue> {
        let thermals = self.model().thermals;
        let milliwatts = |watts: f64| Ok(FieldValue::U32(round_u32(watts * 1_000.0)));
        // Distance of a threshold to the slowdown threshold, in °C.
        let margin = |to: f64| {
            let degrees = i32::try_from(round_u32((to - thermals.slowdown).abs())).unwrap_or(0);
            Ok(FieldValue::I32(if to > thermals.slowdown { -degrees } else { degrees }))
        };
        match field {
            82 => {
                let memory = thermals.memory.ok_or(ReturnCode::NOT_SUPPORTED)?;
                Ok(FieldValue::U32(floor_u32(self.thermal.celsius + memory.above_core)))
            }
            83 | 191 => Ok(FieldValue::U64(self.energy())),
            185 | 186 => Ok(FieldValue::U32(self.power())),
            187 => milliwatts(self.model().limit_range_watts.0),
            188 => milliwatts(self.model().limit_range_watts.1),
            189 => Ok(FieldValue::U32(self.default_power_limit())),
            190 | 192 => Ok(FieldValue::U32(self.power_limit())),
            193 => margin(thermals.shutdown),
            194 => margin(thermals.slowdown),
            196 => margin(thermals.core_max),
            _ => Err(ReturnCode::NOT_SUPPORTED),
        }
    }
}

/// The error counter and the link of a field, for fields with one id per link.
fn error_of_link(field: u32) -> Option<(LinkError, u32)> {
    let errors = [LinkError::Flit, LinkError::Data, LinkError::Replay, LinkError::Recovery];
    let at = |index: u32| usize::try_from(index).ok().and_then(|at| errors.get(at)).copied();
    match field {
        32..=59 => {
            let (error, link) = (at((field - 32) / 7)?, (field - 32) % 7);
            Some((error, if link == 6 { ALL_LINKS } else { link }))
        }
        96..=119 => Some((at((field - 96) / 6)?, 6 + (field - 96) % 6)),
        148..=159 => Some((LinkError::Ecc, field - 148)),
        160 => Some((LinkError::Ecc, ALL_LINKS)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::world::board::tests::{board, board_after, process};
    use crate::{
        clock::Now,
        scenario::Scenario,
        scenario_file::source::BUILT_IN,
        world::{load, thermal_state::ThermalState},
    };

    #[test]
    fn t4_has_no_memory_temperature() {
        let [t4, h100] =
            ["T4", "H100"].map(|model| board(&format!("[[gpu]]\nmodel = \"{model}\"\n"), 0.0));
        assert_eq!(h100.field(82, 0), Ok(FieldValue::U32(38)));
        assert_eq!(t4.field(82, 0), Err(ReturnCode::NOT_SUPPORTED));
        assert_eq!(t4.field(83, 0), Ok(FieldValue::U64(0)));
    }

    #[test]
    fn field_ids_are_those_of_the_header() {
        for (field, error, link) in [
            (32, LinkError::Flit, 0),
            (38, LinkError::Flit, ALL_LINKS),
            (39, LinkError::Data, 0),
            (52, LinkError::Replay, ALL_LINKS),
            (58, LinkError::Recovery, 5),
            (96, LinkError::Flit, 6),
            (119, LinkError::Recovery, 11),
            (160, LinkError::Ecc, ALL_LINKS),
        ] {
            assert_eq!(error_of_link(field), Some((error, link)), "{field}");
        }
        assert_eq!(error_of_link(60), None);
        let gpu = "[[gpu]]\nmodel = \"T4\"\necc = { sbe_volatile = 2, sbe_aggregate = 5, dbe_volatile = 1 }\n";
        let t4 = board(gpu, 0.0);
        let count = |field| t4.field(field, 0);
        assert_eq!([3, 4, 5, 6].map(count), [2, 1, 5, 1].map(|n| Ok(FieldValue::U64(n))));
        assert_eq!([11, 12, 22, 23].map(count), [2, 1, 5, 1].map(|n| Ok(FieldValue::U64(n))));
        assert_eq!([7, 17, 28].map(count), [0, 0, 0].map(|n| Ok(FieldValue::U64(n))));
        assert_eq!(
            (count(15), count(0), count(310)),
            (
                Err(ReturnCode::NOT_SUPPORTED),
                Err(ReturnCode::INVALID_ARGUMENT),
                Err(ReturnCode::INVALID_ARGUMENT),
            )
        );
    }

    #[test]
    fn scope_of_a_throughput_is_a_link_or_all() {
        let text = "[driver]\nversion = \"570.86.15\"\n[[gpu]]\nmodel = \"A100\"\n".to_owned()
            + &process(1, "memory = \"1 GiB\"\nsm = 50\nnvlink = 1200");
        let board = board_after(&text, 10.0);
        assert_eq!(board.field(138, 0), Ok(FieldValue::U64(1_000 * 1_024)));
        assert_eq!(board.field(139, 11), Ok(FieldValue::U64(1_000 * 1_024)));
        assert_eq!(board.field(138, 12), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(board.field(138, ALL_LINKS), Ok(FieldValue::U64(12_000 * 1_024)));
        assert_eq!(board.field(202, 0), Err(ReturnCode::NOT_SUPPORTED));
        assert_eq!(board.field(137, 0), Ok(FieldValue::U32(25_000)));
    }

    /// GPU `index` of a built-in scenario after 60 s.
    fn built_in(name: &str, text: &str, index: usize) -> Option<Board> {
        let scenario = Scenario::parse(name, text).unwrap();
        let gpu = scenario.gpus.get(index)?;
        let mut heat = ThermalState::steady(gpu, load::total(&scenario, gpu, 0.0), 0.0);
        heat.advance(gpu, 60.0, |time| load::total(&scenario, gpu, time));
        let now = Now { real: 0.0, wall: 0, world: 60.0, fixed: true };
        Some(Board::new(Arc::new(scenario), index, heat, now, f64::NEG_INFINITY).unwrap())
    }

    #[test]
    fn built_in_scenarios_have_a_nonzero_value_of_every_counter_field() {
        let boards: Vec<_> = BUILT_IN
            .iter()
            .flat_map(|(name, text)| (0..8).filter_map(move |index| built_in(name, text, index)))
            .collect();
        let counts = [3, 4, 5, 6, 29, 30, 31, 38, 45, 52, 59, 83, 94, 138, 139, 140, 141, 142, 143];
        let more = [144, 145, 161, 162, 163, 185, 186, 197, 198, 202, 204];
        for id in counts.into_iter().chain(more).chain(74..=82) {
            let values = boards.iter().filter_map(|board| board.field(id, ALL_LINKS).ok());
            assert!(values.map(number).any(|count| count > 0), "field {id} is 0 on all boards");
        }
    }

    fn number(value: FieldValue) -> u64 {
        match value {
            FieldValue::U32(number) => number.into(),
            FieldValue::U64(number) => number,
            FieldValue::I32(number) => number.unsigned_abs().into(),
        }
    }

    proptest! {
        #[test]
        fn counters_never_decrease(mut times in proptest::collection::vec(0.0..120.0_f64, 2..6)) {
            times.sort_by(f64::total_cmp);
            let text = "[driver]\nversion = \"570.86.15\"\n[[gpu]]\nmodel = \"B200\"\n\
                        pcie_replays_per_hour = 900.0\n\
                        ecc = { sbe_volatile = 4, dbe_volatile = 1, sbe_aggregate = 9, from = 30 }\n\
                        nvlink = { link = 0, replay = 2, crc_flit = 5, from = 50 }\n\
                        slowed = [{ by = \"board_limit\", from = 10, to = 70 }]\n".to_owned()
                + &process(1, "memory = \"1 GiB\"\nsm = { wave = \"sine\", high = 100, period = 9.0 }\n\
                               nvlink = { wave = \"square\", high = 9000, period = 7.0 }\npcie_rx = 5");
            let counters = (3..=28).chain(32..=59).chain(74..=81).chain([83, 94, 138, 139, 140, 141])
                .chain([142, 143, 161, 162, 163, 197, 198, 202, 204, 213, 215]);
            let boards: Vec<_> = times.iter().map(|time| board_after(&text, *time)).collect();
            for id in counters {
                for scope in [0, 5, ALL_LINKS] {
                    let values: Vec<_> = boards.iter().map(|board| board.field(id, scope).map(number)).collect();
                    prop_assert!(
                        values.windows(2).all(|pair| pair[0].is_err() == pair[1].is_err()),
                        "field {} is not always supported: {:?}", id, values
                    );
                    let counts: Vec<_> = values.into_iter().flatten().collect();
                    prop_assert!(counts.is_sorted(), "field {} of {} decreases: {:?}", id, scope, counts);
                }
            }
        }
    }

    #[test]
    fn old_driver_lacks_newer_fields() {
        let old = board("[driver]\nversion = \"470.256.02\"\n[[gpu]]\nmodel = \"A100\"\n", 0.0);
        assert_eq!(old.field(186, 0), Err(ReturnCode::INVALID_ARGUMENT));
        assert_eq!(old.field(82, 0), Ok(FieldValue::U32(38)));
        let new = board("[[gpu]]\nmodel = \"A100\"\n", 0.0);
        assert_eq!(new.field(186, 0), Ok(FieldValue::U32(58_000)));
        assert_eq!(new.field(194, 0), Ok(FieldValue::I32(0)));
        assert_eq!(new.field(193, 0), Ok(FieldValue::I32(-3)));
    }
}
