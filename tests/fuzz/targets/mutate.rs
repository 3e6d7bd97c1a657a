//! Inputs that come close to valid ones: seeds, spliced and bent, with words of the format.

use std::ops::Range;

use fastrand::Rng;

/// Longer inputs tell nothing that shorter ones do not.
const LENGTH_MAX: usize = 8192;
/// Numbers at which readers break.
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

/// What inputs are made of.
#[derive(Debug)]
pub struct Stock {
    /// Valid inputs, and those that once broke something. Not empty.
    pub seeds: Vec<Vec<u8>>,
    /// Words that mean something in the format.
    pub words: Vec<Vec<u8>>,
}

impl Stock {
    /// One more input.
    pub fn input(&self, random: &mut Rng) -> Vec<u8> {
        let mut input = self.seed(random).to_vec();
        for _ in 0..=random.usize(0..8) {
            self.bend(&mut input, random);
        }
        input.truncate(LENGTH_MAX);
        input
    }

    fn seed<'a>(&'a self, random: &mut Rng) -> &'a [u8] {
        random.choice(&self.seeds).map_or(&[], Vec::as_slice)
    }

    fn bend(&self, input: &mut Vec<u8>, random: &mut Rng) {
        let (at, range) = (random.usize(0..=input.len()), range(input.len(), random));
        let word: &[u8] = random.choice(&self.words).map_or(b"\0", Vec::as_slice);
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

/// A stretch, short more often than long.
fn range(length: usize, random: &mut Rng) -> Range<usize> {
    let from = random.usize(0..=length);
    let most = if random.bool() { 8 } else { length };
    from..(from + random.usize(0..=most)).min(length)
}

/// The first number at or after a place.
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
