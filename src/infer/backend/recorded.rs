use std::sync::Arc;
use std::time::Duration;

use super::Request;
use super::select::Opener;
use crate::infer::Params;
use crate::infer::error::Error;
use crate::infer::runner::{Item, Runner};
use crate::media::{ColorInfo, Detection, I420};

/// Timed runs of each picture.
const RUNS: usize = 5;
/// What boxes may differ by, in pixels, and scores: what the order of sums changes.
const SAME_BOX: f32 = 0.1;
const SAME_SCORE: f32 = 1e-3;

/// What recording the runs of a model gains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded {
    /// The shortest run that was handed over anew.
    pub anew: Duration,
    /// The shortest run that was repeated.
    pub repeated: Duration,
}

impl Opener {
    /// Compares runs of one picture in the first way that is allowed, handed over anew and recorded.
    ///
    /// # Errors
    /// Those of opening and running the model; [`Error::Recording`] where runs can't be recorded, where they find something
    /// else then, and where there is nothing to find.
    pub(in crate::infer) fn try_recorded(&self, request: Request, pictures: &[Arc<I420>]) -> Result<Recorded, Error> {
        let (candidates, reasons) = self.candidates(request);
        let Some(candidate) = candidates.first() else {
            return Err(Error::Unavailable { what: request.precision.to_string(), reason: reasons.join("; ") });
        };
        let (mut runner, _) = self.warmed_up(*candidate, None)?;
        let params = self.manifest.defaults.into();
        let anew = runs(&mut runner, pictures, &params)?;
        runner.settle()?;
        if !runner.is_recorded() {
            let gpu = self.cuda.as_ref().ok().and_then(|cuda| cuda.gpu.as_ref());
            let refused = gpu.and_then(|gpu| gpu.recording.refused()).unwrap_or("it was not asked for");
            return Err(Error::Recording { reason: refused.to_owned() });
        }
        let repeated = runs(&mut runner, pictures, &params)?;
        compare(&anew, &repeated)
    }
}

/// What was found in each picture of each round, and the shortest time.
type Rounds = (Vec<Vec<Detection>>, Duration);

/// Runs all pictures by turns, so that none finds what another has left.
fn runs(runner: &mut Runner, pictures: &[Arc<I420>], params: &Params) -> Result<Rounds, Error> {
    let (mut all, mut shortest) = (Vec::new(), Duration::MAX);
    for _ in 0..RUNS {
        for picture in pictures {
            let picture = Arc::clone(picture).into();
            let item = Item { picture: &picture, color: ColorInfo::default(), params, prepared: None };
            let mut found = Vec::new();
            let timing = runner.run(1, &std::iter::once(item), &mut found)?;
            shortest = shortest.min(timing.service());
            all.extend(found.into_iter().map(|found| found.detections));
        }
    }
    Ok((all, shortest))
}

fn compare((anew, anew_time): &Rounds, (repeated, repeated_time): &Rounds) -> Result<Recorded, Error> {
    let refuse = |reason: &str| Err(Error::Recording { reason: reason.to_owned() });
    if anew.iter().all(Vec::is_empty) {
        return refuse("there was nothing to find, so that nothing can be compared");
    }
    if anew.len() != repeated.len() || !anew.iter().zip(repeated).all(|(a, b)| alike(a, b)) {
        return refuse("what is found by repeating a recorded run is not what is found by running it anew");
    }
    Ok(Recorded { anew: *anew_time, repeated: *repeated_time })
}

fn alike(a: &[Detection], b: &[Detection]) -> bool {
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| {
            a.class == b.class
                && (a.score - b.score).abs() <= SAME_SCORE
                && a.bbox.iter().zip(b.bbox).all(|(a, b)| (a - b).abs() <= SAME_BOX)
        })
}

#[cfg(test)]
#[allow(clippy::panic, reason = "tests")]
mod tests {
    use super::*;
    use crate::media::Class;

    const MS: Duration = Duration::from_millis(1);

    fn detection(left: f32, score: f32, class: u32) -> Detection {
        let class = Class { id: class, name: Arc::from("a") };
        Detection { bbox: [left, 10.0, 50.0, 60.0], class, score, object_id: None, keypoints: Vec::new() }
    }

    #[test]
    fn only_what_finds_the_same_counts_as_recorded() {
        let one = vec![detection(5.0, 0.8, 0), detection(8.0, 0.5, 1)];
        let anew = (vec![one.clone(), vec![]], 3 * MS);
        let with = |other: Vec<Detection>| compare(&anew, &(vec![other, vec![]], MS));
        assert_eq!(with(one.clone()), Ok(Recorded { anew: 3 * MS, repeated: MS }));
        assert!(with(vec![detection(5.01, 0.8001, 0), detection(8.0, 0.5, 1)]).is_ok(), "but for rounding");
        for other in [
            vec![],
            vec![detection(5.0, 0.8, 0)],
            vec![detection(5.2, 0.8, 0), detection(8.0, 0.5, 1)],
            vec![detection(5.0, 0.81, 0), detection(8.0, 0.5, 1)],
            vec![detection(5.0, 0.8, 1), detection(8.0, 0.5, 1)],
        ] {
            assert!(matches!(with(other), Err(Error::Recording { .. })));
        }
        // A repeated run that has not seen the next picture.
        assert!(compare(&anew, &(vec![one.clone(), one], MS)).is_err());
    }

    #[test]
    fn where_there_is_nothing_to_find_nothing_is_shown() {
        let nothing = (vec![vec![], vec![]], MS);
        let Err(Error::Recording { reason }) = compare(&nothing, &nothing) else { panic!("it is refused") };
        assert!(reason.contains("nothing to find"), "{reason}");
    }
}
