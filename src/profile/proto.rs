//! Profiles in the protobuf format of `pprof` (`profile.proto` of google/pprof), which many programs read.

use std::collections::HashMap;
use std::hash::Hash;
use std::io::Write;
use std::time::UNIX_EPOCH;

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message;

use super::{Function as Called, HERTZ, Profile};

#[derive(Clone, PartialEq, Message)]
struct Written {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Numbers things in the order in which they come, from 0.
struct Numbers<K>(HashMap<K, usize>);

impl<K: Hash + Eq> Numbers<K> {
    /// The number of a thing, and whether it is new.
    fn of(&mut self, key: K) -> (usize, bool) {
        let next = self.0.len();
        let number = *self.0.entry(key).or_insert(next);
        (number, number == next)
    }
}

struct Texts {
    numbers: Numbers<String>,
    table: Vec<String>,
}

impl Texts {
    fn of(&mut self, text: &str) -> i64 {
        let (number, is_new) = self.numbers.of(text.to_owned());
        if is_new {
            self.table.push(text.to_owned());
        }
        whole(number)
    }
}

fn whole(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A profile as `pprof` reads it, compressed with gzip: samples and nanoseconds of processors' time, by function.
#[must_use]
pub fn gzipped(profile: &Profile) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    // Nothing fails that is written to memory.
    let _ = packed.write_all(&write(profile).encode_to_vec());
    packed.finish().unwrap_or_default()
}

fn write(profile: &Profile) -> Written {
    let mut texts = Texts { numbers: Numbers(HashMap::new()), table: Vec::new() };
    // The first text has to be empty.
    texts.of("");
    let cpu = ValueType { kind: texts.of("cpu"), unit: texts.of("nanoseconds") };
    let samples = ValueType { kind: texts.of("samples"), unit: texts.of("count") };
    let (period, thread) = (1_000_000_000 / i64::from(HERTZ), texts.of("thread"));
    let mut written =
        Written { sample_type: vec![samples, cpu.clone()], period_type: Some(cpu), period, ..Written::default() };
    let (mut functions, mut locations) = (Numbers(HashMap::new()), Numbers(HashMap::new()));
    for stack in &profile.stacks {
        let mut sample =
            Sample { label: vec![Label { key: thread, text: texts.of(&stack.thread) }], ..Sample::default() };
        for called in stack.functions.iter().rev() {
            let Called { name, file, line } = called;
            let (function, is_new) = functions.of((name, file));
            if is_new {
                let (id, name) = (function as u64 + 1, texts.of(name));
                written.function.push(Function { id, name, system_name: name, filename: texts.of(file) });
            }
            let (location, is_new) = locations.of((function, *line));
            if is_new {
                let line = Line { function_id: function as u64 + 1, line: i64::from(*line) };
                written.location.push(Location { id: location as u64 + 1, line: vec![line] });
            }
            sample.location_id.push(location as u64 + 1);
        }
        let count = i64::try_from(stack.samples).unwrap_or(i64::MAX);
        sample.value = vec![count, count.saturating_mul(period)];
        written.sample.push(sample);
    }
    let nanos = |time: std::time::Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    written.time_nanos = nanos(profile.began.duration_since(UNIX_EPOCH).unwrap_or_default());
    written.duration_nanos = nanos(profile.took);
    written.string_table = texts.table;
    written
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::Read;
    use std::time::Duration;

    use super::super::Stack;
    use super::*;

    #[test]
    fn stacks_are_written_from_the_inside_and_each_function_once() {
        let called = |name: &str, line| Called { name: name.into(), file: format!("{name}.rs"), line };
        let stack = |thread: &str, functions, samples| Stack { thread: thread.into(), functions, samples };
        let stacks = vec![
            stack("a", vec![called("main", 3), called("work", 7)], 2),
            stack("b", vec![called("main", 4), called("work", 7)], 5),
        ];
        let profile = Profile { began: UNIX_EPOCH + Duration::from_secs(1), took: Duration::from_secs(2), stacks };
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(gzipped(&profile).as_slice()).read_to_end(&mut bytes).unwrap();
        let read = Written::decode(bytes.as_slice()).unwrap();
        assert_eq!((read.function.len(), read.location.len(), read.sample.len()), (2, 3, 2));
        let name = |location: u64| {
            let line = &read.location.iter().find(|it| it.id == location).unwrap().line[0];
            let function = read.function.iter().find(|it| it.id == line.function_id).unwrap();
            (read.string_table[function.name as usize].as_str(), line.line)
        };
        let names: Vec<_> = read.sample[1].location_id.iter().map(|id| name(*id)).collect();
        assert_eq!(names, [("work", 7), ("main", 4)]);
        assert_eq!(read.sample[1].value, [5, 5 * 10_101_010]);
        assert_eq!((read.string_table[0].as_str(), read.time_nanos), ("", 1_000_000_000));
    }
}
