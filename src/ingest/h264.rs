use bytes::{Buf, Bytes, BytesMut};

use super::assemble::{Fault, Finished};
use super::bits::Bits;

const START_CODE: [u8; 4] = [0, 0, 0, 1];
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// Rebuilds H.264 access units from RTP payloads (RFC 6184, packetization modes 0 and 1) as an Annex B byte stream.
#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    sps: ParameterSets,
    pps: ParameterSets,
    /// Whether the last IDR picture brought its own parameter sets.
    in_band: bool,
    unit: Unit,
}

/// What is known of the unit in progress.
#[derive(Debug, Default)]
struct Unit {
    first_type: Option<u8>,
    has_sps: bool,
    has_pps: bool,
    has_idr: bool,
    has_slice: bool,
    /// Whether the first slice is the picture's first.
    from_first_macroblock: bool,
    /// Where the NAL unit that is being rebuilt from fragments begins in the unit's data.
    fragment: Option<usize>,
}

impl Depacketizer {
    pub(super) fn push(&mut self, payload: &[u8], data: &mut BytesMut) -> Result<(), Fault> {
        let &[header, ref body @ ..] = payload else { return Err(Fault::Malformed) };
        if header & 0x80 != 0 || (self.unit.fragment.is_some() && header & 0x1f != FU_A) {
            return Err(Fault::Malformed);
        }
        match header & 0x1f {
            1..=23 => self.put(payload, data),
            STAP_A => {
                let mut rest = body;
                while !rest.is_empty() {
                    let size = usize::from(rest.try_get_u16().map_err(|_| Fault::Malformed)?);
                    let nal;
                    (nal, rest) = rest.split_at_checked(size).ok_or(Fault::Malformed)?;
                    if !nal.first().is_some_and(|header| matches!(header & 0x9f, 1..=23)) {
                        return Err(Fault::Malformed);
                    }
                    self.put(nal, data);
                }
            }
            FU_A => self.put_fragment(payload, data)?,
            25..=27 | 29 => return Err(Fault::Malformed),
            // Reserved types are ignored (RFC 6184, section 5.2).
            _ => {}
        }
        Ok(())
    }

    pub(super) const fn in_keyframe(&self) -> bool {
        self.unit.has_sps || self.unit.has_idr
    }

    /// `from_start` says whether no packet is missing before the unit's first one.
    pub(super) fn finish(&mut self, from_start: bool) -> Result<Option<Finished>, Fault> {
        let unit = std::mem::take(&mut self.unit);
        if unit.fragment.is_some() {
            return Err(Fault::Incomplete);
        }
        if !unit.has_slice {
            return Ok(None);
        }
        let starts = match unit.first_type {
            Some(SPS | DELIMITER) => true,
            _ => unit.from_first_macroblock && !self.in_band,
        };
        if !from_start && !starts {
            return Err(Fault::Incomplete);
        }
        if unit.has_idr {
            self.in_band = unit.has_sps;
        }
        let keyframe = unit.has_idr && !self.sps.is_empty() && !self.pps.is_empty();
        let mut prefix = BytesMut::new();
        if keyframe && !(unit.has_sps && unit.has_pps) {
            for nal in self.sps.iter().chain(self.pps.iter()) {
                prefix.extend_from_slice(&START_CODE);
                prefix.extend_from_slice(nal);
            }
        }
        Ok(Some(Finished { keyframe, prefix: prefix.freeze() }))
    }

    pub(super) fn discard(&mut self) {
        self.unit = Unit::default();
    }

    fn put(&mut self, nal: &[u8], data: &mut BytesMut) {
        data.extend_from_slice(&START_CODE);
        data.extend_from_slice(nal);
        self.note(nal);
    }

    /// A fragment (RFC 6184, section 5.8): the NAL unit's header is split over the first two bytes.
    fn put_fragment(&mut self, payload: &[u8], data: &mut BytesMut) -> Result<(), Fault> {
        let &[indicator, header, ref part @ ..] = payload else { return Err(Fault::Malformed) };
        let (starts, ends, kind) = (header & 0x80 != 0, header & 0x40 != 0, header & 0x1f);
        if starts {
            if self.unit.fragment.is_some() || !matches!(kind, 1..=23) {
                return Err(Fault::Malformed);
            }
            data.extend_from_slice(&START_CODE);
            self.unit.fragment = Some(data.len());
            data.extend_from_slice(&[indicator & 0xe0 | kind]);
        }
        let start = self.unit.fragment.ok_or(Fault::Incomplete)?;
        if data[start] & 0x1f != kind {
            return Err(Fault::Malformed);
        }
        data.extend_from_slice(part);
        if ends {
            self.unit.fragment = None;
            self.note(&data[start..]);
        } else if starts && kind == IDR {
            self.unit.has_idr = true;
        }
        Ok(())
    }

    fn note(&mut self, nal: &[u8]) {
        let unit = &mut self.unit;
        let kind = nal[0] & 0x1f;
        unit.first_type.get_or_insert(kind);
        match kind {
            1..=IDR => {
                if !unit.has_slice {
                    unit.from_first_macroblock = Bits::new(&nal[1..]).ue() == Some(0);
                }
                unit.has_slice = true;
                unit.has_idr |= kind == IDR;
            }
            // The identifier follows profile, constraints and level (H.264, section 7.3.2.1.1).
            SPS => {
                unit.has_sps = true;
                if let Some(id) = nal.get(4..).and_then(|rest| Bits::new(rest).ue()) {
                    self.sps.insert(id, nal);
                }
            }
            PPS => {
                unit.has_pps = true;
                if let Some(id) = Bits::new(&nal[1..]).ue() {
                    self.pps.insert(id, nal);
                }
            }
            _ => {}
        }
    }
}

/// The parameter sets last received, by identifier.
#[derive(Debug, Default)]
struct ParameterSets(Vec<(u32, Bytes)>);

impl ParameterSets {
    /// Sets kept at most; a stream uses one or two.
    const CAPACITY: usize = 16;
    /// Size of a set at most; real ones have tens of bytes.
    const MAX_BYTES: usize = 1_024;

    fn insert(&mut self, id: u32, nal: &[u8]) {
        if nal.len() > Self::MAX_BYTES {
            return;
        }
        if let Some((_, kept)) = self.0.iter_mut().find(|(kept, _)| *kept == id) {
            if kept != nal {
                *kept = Bytes::copy_from_slice(nal);
            }
        } else {
            if self.0.len() == Self::CAPACITY {
                self.0.remove(0);
            }
            self.0.push((id, Bytes::copy_from_slice(nal)));
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().map(|(_, nal)| nal)
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const SPS_NAL: &[u8] = &[0x67, 0x42, 0xc0, 0x1f, 0x8c, 0x8d];
    const PPS_NAL: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
    const IDR_NAL: &[u8] = &[0x65, 0xb8, 1, 2, 3, 4, 5];

    fn annex_b(nals: &[&[u8]]) -> Vec<u8> {
        nals.iter().flat_map(|nal| [&START_CODE[..], nal].concat()).collect()
    }

    fn stap_a(nals: &[&[u8]]) -> Bytes {
        let parts = nals.iter().flat_map(|nal| [&[0, u8::try_from(nal.len()).unwrap()][..], nal].concat());
        std::iter::once(0x78).chain(parts).collect()
    }

    fn unit(depacketizer: &mut Depacketizer, payloads: &[Bytes]) -> Result<(bool, Vec<u8>), Fault> {
        let mut data = BytesMut::new();
        for payload in payloads {
            depacketizer.push(payload, &mut data)?;
        }
        let finished = depacketizer.finish(true)?.expect("a picture");
        Ok((finished.keyframe, [&finished.prefix[..], &data].concat()))
    }

    #[test]
    fn aggregated_and_fragmented_nals_come_back_whole() {
        let mut depacketizer = Depacketizer::default();
        let fragments = [&[0x7c, 0x85, 0xb8, 1][..], &[0x7c, 0x05, 2, 3], &[0x7c, 0x45, 4, 5]];
        let mut payloads = vec![stap_a(&[SPS_NAL, PPS_NAL])];
        payloads.extend(fragments.map(Bytes::from_static));
        let (keyframe, data) = unit(&mut depacketizer, &payloads).unwrap();
        assert!(keyframe);
        assert_eq!(data, annex_b(&[SPS_NAL, PPS_NAL, IDR_NAL]));
    }

    #[test]
    fn an_idr_picture_without_parameter_sets_gets_the_remembered_ones() {
        let mut depacketizer = Depacketizer::default();
        let idr = Bytes::from_static(IDR_NAL);
        assert_eq!(unit(&mut depacketizer, std::slice::from_ref(&idr)).unwrap(), (false, annex_b(&[IDR_NAL])));
        let mut data = BytesMut::new();
        for nal in [SPS_NAL, PPS_NAL] {
            depacketizer.push(nal, &mut data).unwrap();
            assert_eq!(depacketizer.finish(true), Ok(None));
        }
        assert_eq!(unit(&mut depacketizer, &[idr]).unwrap(), (true, annex_b(&[SPS_NAL, PPS_NAL, IDR_NAL])));
    }

    #[test]
    fn after_a_gap_a_unit_counts_only_if_its_beginning_is_certain() {
        let mut depacketizer = Depacketizer::default();
        let mut after_gap = |nals: &[&[u8]]| {
            let mut data = BytesMut::new();
            for nal in nals {
                depacketizer.push(nal, &mut data).unwrap();
            }
            depacketizer.finish(false).map(|finished| finished.unwrap().keyframe)
        };
        let second_slice: &[u8] = &[0x65, 0x48, 1];
        assert_eq!(after_gap(&[second_slice]), Err(Fault::Incomplete));
        assert_eq!(after_gap(&[SPS_NAL, PPS_NAL, IDR_NAL]), Ok(true));
        // This sender repeats its parameter sets: here they are missing, and may have changed.
        assert_eq!(after_gap(&[IDR_NAL]), Err(Fault::Incomplete));
    }

    #[test]
    fn what_breaks_the_rules_is_malformed() {
        for (payloads, fault) in [
            (&[&[][..]][..], Fault::Malformed),
            (&[&[0x7c]], Fault::Malformed),
            (&[&[0x7c, 0x05, 1]], Fault::Incomplete),
            (&[&[0x7c, 0x85, 1], IDR_NAL], Fault::Malformed),
            (&[&[0x7c, 0x85, 1], &[0x7c, 0x41, 1]], Fault::Malformed),
            (&[&[0x7c, 0x85, 1]], Fault::Incomplete),
            (&[&[0x78, 0, 9, 0x65]], Fault::Malformed),
            (&[&[0x78, 0, 1, 0x78]], Fault::Malformed),
            (&[&[0x79, 1]], Fault::Malformed),
            (&[&[0xe5, 1]], Fault::Malformed),
        ] {
            let payloads: Vec<_> = payloads.iter().map(|payload| Bytes::copy_from_slice(payload)).collect();
            assert_eq!(unit(&mut Depacketizer::default(), &payloads), Err(fault), "{payloads:?}");
        }
    }
}
