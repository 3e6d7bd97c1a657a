//! The members of C structs: reads them as values, and writes values to them.

use crate::recording::Value;

/// Kind of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Unsigned integer of this many bytes.
    Unsigned(usize),
    /// `int`.
    Signed,
    /// Characters up to a NUL.
    Text(usize),
    /// Bytes.
    Bytes(usize),
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::Unsigned(size) | Self::Text(size) | Self::Bytes(size) => size,
            Self::Signed => 4,
        }
    }

    fn alignment(self) -> usize {
        match self {
            Self::Unsigned(size) => size,
            Self::Signed => 4,
            Self::Text(_) | Self::Bytes(_) => 1,
        }
    }
}

/// A member and its offset.
struct Member {
    offset: usize,
    kind: Kind,
    /// An input, which is not recorded.
    is_input: bool,
}

/// The members of a layout, and the size of the struct. A layout is a sequence of members: `B`, `H`, `I`, `Q`
/// are unsigned integers of 1, 2, 4, 8 bytes, `i` is an `int`, `16s` a text and `16x` bytes of this size; `-`
/// precedes an input.
fn members(layout: &str) -> (Vec<Member>, usize) {
    let (mut members, mut offset, mut alignment) = (Vec::new(), 0_usize, 1);
    let (mut length, mut is_input) = (0_usize, false);
    for letter in layout.chars() {
        let kind = match letter {
            '-' => {
                is_input = true;
                continue;
            }
            'B' => Kind::Unsigned(1),
            'H' => Kind::Unsigned(2),
            'I' => Kind::Unsigned(4),
            'Q' => Kind::Unsigned(8),
            's' => Kind::Text(length),
            'x' => Kind::Bytes(length),
            'i' => Kind::Signed,
            digit => {
                let digit = digit.to_digit(10).and_then(|digit| usize::try_from(digit).ok());
                length = length * 10 + digit.unwrap_or_default();
                continue;
            }
        };
        offset = offset.next_multiple_of(kind.alignment());
        members.push(Member { offset, kind, is_input });
        offset += kind.size();
        alignment = alignment.max(kind.alignment());
        (length, is_input) = (0, false);
    }
    (members, offset.next_multiple_of(alignment))
}

/// Size of a struct with this layout, in bytes.
pub(super) fn size(layout: &str) -> usize {
    members(layout).1
}

/// The values of a struct with this layout, without inputs.
pub(super) fn decode(bytes: &[u8], layout: &str) -> Vec<Value> {
    let (members, _) = members(layout);
    let outputs = members.iter().filter(|member| !member.is_input);
    let value = |member: &Member| {
        let end = member.offset + member.kind.size();
        let bytes = bytes.get(member.offset..end).unwrap_or_default();
        match member.kind {
            Kind::Unsigned(_) => Value::Number(unsigned(bytes)),
            Kind::Signed => {
                let bytes = bytes.first_chunk().copied().unwrap_or_default();
                Value::Number(i64::from(i32::from_ne_bytes(bytes)))
            }
            Kind::Text(_) => text(bytes),
            Kind::Bytes(_) => Value::Text(hexadecimal(bytes)),
        }
    };
    outputs.map(value).collect()
}

/// Writes values to a struct with this layout; inputs and missing values are left as they are.
pub(super) fn encode(bytes: &mut [u8], layout: &str, values: &mut impl Iterator<Item = Value>) {
    let (members, _) = members(layout);
    for member in members.iter().filter(|member| !member.is_input) {
        let Some(value) = values.next() else { return };
        let end = member.offset + member.kind.size();
        let Some(place) = bytes.get_mut(member.offset..end) else { return };
        match (value, member.kind) {
            (Value::Number(number), Kind::Unsigned(_) | Kind::Signed) => {
                let number = number.to_ne_bytes();
                place.copy_from_slice(number.get(..place.len()).unwrap_or_default());
            }
            (Value::Text(text), Kind::Text(_)) => put_text(place, &text),
            (Value::Text(digits), Kind::Bytes(_)) => {
                for (byte, at) in place.iter_mut().zip((0..).step_by(2)) {
                    let digits = digits.get(at..at + 2);
                    *byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok()).unwrap_or(0);
                }
            }
            (Value::Number(_), Kind::Text(_) | Kind::Bytes(_)) => place.fill(u8::MAX),
            (Value::Float(_) | Value::Text(_), _) => {}
        }
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |digits, byte| digits + &format!("{byte:02x}"))
}

/// The text up to the NUL, or to the end. Bytes that are no text are -1.
pub(super) fn text(bytes: &[u8]) -> Value {
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    std::str::from_utf8(text).map_or(Value::Number(-1), |text| Value::Text(text.to_owned()))
}

fn put_text(place: &mut [u8], text: &str) {
    place.fill(0);
    for (byte, letter) in place.iter_mut().zip(text.bytes()) {
        *byte = letter;
    }
}

fn unsigned(bytes: &[u8]) -> i64 {
    let mut wide = [0; 8];
    for (to, from) in wide.iter_mut().zip(bytes) {
        *to = *from;
    }
    i64::from_ne_bytes(wide)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_aligned_as_in_c() {
        use nvml_wrapper_sys::bindings as nvml;
        for (layout, expected) in [
            ("-IQQQQ", size_of::<nvml::nvmlMemory_v2_t>()),
            ("IQII", size_of::<nvml::nvmlProcessInfo_v2_t>()),
            ("16sIIIII32s", size_of::<nvml::nvmlPciInfo_t>()),
            ("-I16xIIBI", size_of::<nvml::nvmlGpuFabricInfo_v2_t>()),
            ("-I16xIIBIB", size_of::<nvml::nvmlGpuFabricInfo_v3_t>()),
            ("-I16x16sBBBBB", size_of::<nvml::nvmlPlatformInfo_v2_t>()),
            ("-QIIII", size_of::<nvml::nvmlGpuInstanceInfo_t>()),
            ("IIIIIIIIIIQ", size_of::<nvml::nvmlGpuInstanceProfileInfo_t>()),
            ("-IQQQQQQQQQQQI", size_of::<nvml::nvmlEccSramErrorStatus_v1_t>()),
            ("II128s128sIIHHHHHB", size_of::<nvml::nvmlGridLicensableFeature_t>()),
            ("IIIIIIIIQ", size_of::<nvml::nvmlDeviceAttributes_t>()),
            ("-III", size_of::<nvml::nvmlRepairStatus_v1_t>()),
            (
                "-IIIIIIIIIIIIIIIIIIIIIIIII",
                size_of::<nvml::nvmlWorkloadPowerProfileCurrentProfiles_v1_t>(),
            ),
        ] {
            assert_eq!(size(layout), expected, "{layout}");
        }
    }

    #[test]
    fn values_survive_encoding() {
        let layout = "-I16x8sBiHQ";
        let mut bytes = vec![0; size(layout)];
        bytes[..4].copy_from_slice(&7_u32.to_ne_bytes());
        let values = [
            Value::Text("000102030405060708090a0b0c0d0eff".into()),
            Value::Text("abc".into()),
            Value::Number(255),
            Value::Number(-3),
            Value::Number(65_535),
            Value::Number(-1),
        ];
        encode(&mut bytes, layout, &mut values.iter().cloned());
        assert_eq!(decode(&bytes, layout), values);
        assert_eq!(bytes[..4], 7_u32.to_ne_bytes(), "an input is not written");
        assert_eq!(text(b"\xff\xff"), Value::Number(-1));
    }
}
