use super::reader::{Raw, Reader};
use crate::memory::Limits;

/// `[memory]`: shares of the memory, of the host or of a GPU, that may be in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// From which share on operators are warned; default 0.8.
    pub warn_ratio: f64,
    /// From which share on caches are emptied and nothing new is begun, until it is 0.05 less; default 0.95. At 1 a process with
    /// a limit is ended by the kernel before anything is refused.
    pub shed_ratio: f64,
}

impl Memory {
    pub(super) fn read(from: &mut Reader) -> Self {
        const LEGAL: &str = "a number from 0.1 to 1";
        let parse = |raw: &Raw| raw.float().filter(|ratio| (0.1..=1.0).contains(ratio));
        let warn = from.traced("memory.warn_ratio", LEGAL, false, parse);
        let shed = from.traced("memory.shed_ratio", LEGAL, false, parse);
        let ratio = |ratio: &Option<(f64, _)>, default| ratio.as_ref().map_or(default, |(ratio, _)| *ratio);
        let memory = Self { warn_ratio: ratio(&warn, 0.8), shed_ratio: ratio(&shed, 0.95) };
        if memory.warn_ratio > memory.shed_ratio
            && let Some((_, given)) = warn.or(shed)
        {
            from.mistake(&given, "must leave memory.warn_ratio no more than memory.shed_ratio");
        }
        memory
    }

    /// The same for the watch.
    #[must_use]
    pub const fn limits(self) -> Limits {
        Limits { warn: self.warn_ratio, shed: self.shed_ratio }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, File, Sources};

    fn load(settings: &[(&str, &str)]) -> Result<(f64, f64), String> {
        let mut sources = Sources { file: File::None, ..Sources::default() };
        for (key, value) in settings {
            sources.flag(key, "--set", *value);
        }
        let config = Config::load(&sources).map_err(|mistakes| mistakes.to_string())?;
        Ok((config.memory.warn_ratio, config.memory.shed_ratio))
    }

    #[test]
    fn shares_are_read_and_have_an_order() {
        assert_eq!(load(&[]), Ok((0.8, 0.95)));
        assert_eq!(load(&[("memory.warn_ratio", "0.5"), ("memory.shed_ratio", "1")]), Ok((0.5, 1.0)));
        for wrong in ["0", "1.1", "-1", "NaN", "much"] {
            assert!(
                load(&[("memory.warn_ratio", wrong)]).is_err_and(|told| told.contains("memory.warn_ratio")),
                "{wrong}"
            );
        }
        for (key, value) in [("memory.warn_ratio", "0.96"), ("memory.shed_ratio", "0.7")] {
            let told = load(&[(key, value)]).unwrap_err();
            assert!(told.contains(key) && told.contains("no more than memory.shed_ratio"), "{told}");
        }
    }
}
