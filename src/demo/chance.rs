//! Chance that falls the same way each time: numbers and ids made from what they are for and from an index.
//!
//! Only integers and the four basic operations are used on the way to a value, so that every machine makes the same.

/// Numbers for one thing: the same thing and index give the same numbers.
pub(super) struct Chance(u64);

/// The next state of splitmix64 as a well-mixed number.
pub(super) fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A mixed number as a fraction from 0 to before 1.
pub(super) fn fraction(mixed: u64) -> f64 {
    (mixed >> 11) as f64 / (1u64 << 53) as f64
}

impl Chance {
    /// For the thing of that name and index.
    pub(super) fn of(thing: &str, index: u64) -> Chance {
        let name =
            thing.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Chance(mix(name ^ mix(index)))
    }

    /// The next number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// From 0 to before `limit`; 0 where there is no such number.
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.next().checked_rem(limit).unwrap_or(0)
    }

    /// As [`Chance::below`], for times.
    pub(super) fn time(&mut self, limit: i64) -> i64 {
        self.next().cast_signed().checked_rem_euclid(limit).unwrap_or(0)
    }

    /// From 0 to before 1.
    pub(super) fn fraction(&mut self) -> f64 {
        fraction(self.next())
    }

    /// One of these words.
    pub(super) fn word<'a>(&mut self, words: &[&'a str]) -> &'a str {
        let place = self.below(words.len() as u64);
        usize::try_from(place).ok().and_then(|p| words.get(p)).copied().unwrap_or_default()
    }
}

/// 32 hexadecimal digits as Python's `uuid.uuid4().hex` makes them: what MLflow's ids are.
pub(super) fn uuid(thing: &str, index: u64) -> String {
    let mut chance = Chance::of(thing, index);
    let high = chance.next() & !0xf000 | 0x4000;
    let low = chance.next() & !(0b11 << 62) | (0b10 << 62);
    format!("{high:016x}{low:016x}")
}

/// As many hexadecimal digits: a commit, a digest.
pub(super) fn hex(thing: &str, index: u64, digits: usize) -> String {
    let mut chance = Chance::of(thing, index);
    let mut text = String::new();
    while text.len() < digits {
        text.push_str(&format!("{:016x}", chance.next()));
    }
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_mlflows_and_do_not_change() {
        assert_eq!(uuid("run", 0), uuid("run", 0));
        assert_ne!(uuid("run", 0), uuid("run", 1));
        assert_ne!(uuid("run", 0), uuid("model", 0));
        let id = uuid("run", 7);
        assert_eq!((id.len(), id.chars().nth(12)), (32, Some('4')), "{id}");
        assert_eq!(hex("commit", 1, 40).len(), 40);
    }
}
