//! Generates nearly valid inputs: mutated and spliced seeds, with tokens of the format.

use std::ops::Range;

use fastrand::Rng;

/// Maximum input length in bytes; longer inputs find nothing more.
const LENGTH_MAX: usize = 8192;
/// Boundary values of number parsers.
const NUMBERS: [&str; 11] = [
    "0",
    "-1",
    "1",
    "64",
    "255",
    "256",
    "65536",
    "4294967295",
    "4294967296",
    "18446744073709551616",
    "1e999",
];

/// Material for generated inputs.
#[derive(Debug)]
pub struct Mutator {
    /// Valid inputs and regressions. Not empty.
    pub corpus: Vec<Vec<u8>>,
    /// Tokens of the input format (libFuzzer dictionary).
    pub dictionary: Vec<Vec<u8>>,
}

impl Mutator {
    /// Generates an input: a random seed with one to eight mutations, at most 8192 bytes.
    pub fn generate(&self, random: &mut Rng) -> Vec<u8> {
        let mut input = self.seed(random).to_vec();
        for _ in 0..=random.usize(0..8) {
            self.mutate(&mut input, random);
        }
        input.truncate(LENGTH_MAX);
        input
    }

    fn seed<'a>(&'a self, random: &mut Rng) -> &'a [u8] {
        random.choice(&self.corpus).map_or(&[], Vec::as_slice)
    }

    fn mutate(&self, input: &mut Vec<u8>, random: &mut Rng) {
        let (at, range) = (random.usize(0..=input.len()), range(input.len(), random));
        let word: &[u8] = random.choice(&self.dictionary).map_or(b"\0", Vec::as_slice);
        match random.u8(0..10) {
            0 => insert(input, at, word),
            1 => replace(input, range, word),
            2 => replace(input, range, &[]),
            3 => {
                let copy = input.get(range).unwrap_or_default().repeat(random.usize(1..4));
                insert(input, at, &copy);
            }
            4 => {
                let other = self.seed(random);
                let part = other.get(self::range(other.len(), random)).unwrap_or_default();
                insert(input, at, part);
            }
            5 => {
                let other = self.seed(random);
                input.truncate(at);
                input.extend_from_slice(
                    other.get(random.usize(0..=other.len())..).unwrap_or_default(),
                );
            }
            6 => {
                let number = random.choice(NUMBERS).unwrap_or_default().as_bytes();
                if let Some(digits) = digits(input, at) {
                    replace(input, digits, number);
                }
            }
            7 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.u8(0..8);
                }
            }
            8 => {
                if let Some(byte) = input.get_mut(at) {
                    *byte = random.u8(..);
                }
            }
            _ => insert(input, at, &[random.u8(..)]),
        }
    }
}

/// A random range; half of the time at most 8 bytes long.
fn range(length: usize, random: &mut Rng) -> Range<usize> {
    let from = random.usize(0..=length);
    let length_max = if random.bool() { 8 } else { length };
    from..(from + random.usize(0..=length_max)).min(length)
}

/// The range of the first number at or after `at`.
fn digits(input: &[u8], at: usize) -> Option<Range<usize>> {
    let from = at + input.get(at..)?.iter().position(u8::is_ascii_digit)?;
    let length = input.get(from..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
    Some(from..from + length)
}

fn insert(input: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    replace(input, at..at, bytes);
}

fn replace(input: &mut Vec<u8>, range: Range<usize>, bytes: &[u8]) {
    input.splice(range, bytes.iter().copied());
}
