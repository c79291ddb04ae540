use std::sync::Arc;

use super::{Expected, MAX_OUTPUTS, Outlet, Side, View, names, shape_text};
use crate::infer::error::Error;
use crate::media::Tensor;

/// Values of all tensors of a frame at most: with more, a message would be too large for a data channel. An output that does
/// not fit beside those before it is told without its values.
pub(super) const MAX_VALUES: usize = 4096;

/// Outputs as they are.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    names: Vec<Arc<str>>,
}

/// The outputs of these names, or all.
///
/// # Errors
/// [`Error::WrongOutput`] if there is none of a name, or more than can be read.
pub(super) fn outputs(tensors: Option<&[String]>, outlets: &[Outlet]) -> Result<Vec<Expected>, Error> {
    let wrong = |tensor: &str, expected: &str, found: String| Error::WrongOutput {
        decoder: "raw",
        tensor: tensor.to_owned(),
        expected: expected.to_owned(),
        found,
    };
    let find = |name: &String| {
        let found = outlets.iter().find(|outlet| outlet.name == *name);
        found.ok_or_else(|| wrong(name, "an output of this name", format!("only {}", names(outlets))))
    };
    let wanted: Vec<&Outlet> = match tensors {
        Some(tensors) => tensors.iter().map(find).collect::<Result<_, _>>()?,
        None => outlets.iter().collect(),
    };
    if !(1..=MAX_OUTPUTS).contains(&wanted.len()) {
        let found = format!("{} of them", wanted.len());
        return Err(wrong("(all)", &format!("1 to {MAX_OUTPUTS} outputs; name some in `output.tensors`"), found));
    }
    let expected = |outlet: &Outlet| {
        let side = |side: &i64| usize::try_from(*side).map_or(Side::Any, Side::Exactly);
        let [_, sides @ ..] = &outlet.shape[..] else {
            return Err(wrong(&outlet.name, "[batch, …]", shape_text(&outlet.shape)));
        };
        Ok(Expected { name: outlet.name.clone(), sides: sides.iter().map(side).collect() })
    };
    wanted.into_iter().map(expected).collect()
}

impl Raw {
    pub(super) fn new(outputs: &[Expected]) -> Self {
        Self { names: outputs.iter().map(|output| Arc::from(output.name.as_str())).collect() }
    }

    /// The tensors of one picture; `items` are its values in each of the `views`.
    pub(super) fn decode(&self, views: &[View<'_>], items: &[&[f32]]) -> Vec<Tensor> {
        let mut room = MAX_VALUES;
        let tensor = |((name, view), values): ((&Arc<str>, &View<'_>), &&[f32])| {
            let fits = values.len() <= room;
            room -= if fits { values.len() } else { 0 };
            let sides = view.shape.get(1..).unwrap_or_default();
            let shape = std::iter::once(1).chain(sides.iter().copied()).collect();
            Tensor { name: Arc::clone(name), shape, data: fits.then(|| values.to_vec()) }
        };
        self.names.iter().zip(views).zip(items).map(tensor).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn outlet(name: &str, shape: &[i64]) -> Outlet {
        Outlet { name: name.to_owned(), shape: shape.to_vec() }
    }

    #[test]
    fn outputs_are_all_or_those_that_are_named_in_their_order() {
        let outlets = [outlet("a", &[1, 2]), outlet("b", &[-1, -1, 3])];
        let names = |tensors: Option<&[String]>| {
            outputs(tensors, &outlets).map(|found| found.into_iter().map(|one| one.name).collect::<Vec<_>>())
        };
        assert_eq!(names(None).unwrap(), ["a", "b"]);
        assert_eq!(names(Some(&["b".to_owned()])).unwrap(), ["b"]);
        let error = names(Some(&["c".to_owned()])).unwrap_err().to_string();
        assert!(error.contains("`c`") && error.contains("only `a` [1, 2]"), "{error}");
        let many: Vec<_> = (0..40).map(|n| outlet(&n.to_string(), &[1, 2])).collect();
        assert!(outputs(None, &many).unwrap_err().to_string().contains("`output.tensors`"));
        assert!(outputs(None, &[]).is_err());
        assert!(outputs(None, &[outlet("scalar", &[])]).is_err());
    }

    #[test]
    fn what_has_no_room_in_a_message_is_told_without_its_values() {
        let large = vec![0.5; MAX_VALUES];
        let shapes: [&[i64]; 3] = [&[2, 3], &[2, 64, 64], &[2, 1]];
        let views = shapes.map(|shape| View { shape, data: &[] });
        let outlets = [outlet("a", &[2, 3]), outlet("b", &[2, 64, 64]), outlet("c", &[2, 1])];
        let raw = Raw::new(&outputs(None, &outlets).unwrap());
        let found = raw.decode(&views, &[&[1.0, 2.0, 3.0], &large, &[4.0]]);
        let told: Vec<_> = found.iter().map(|one| (&*one.name, &one.shape[..], one.data.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("a", &[1, 3][..], Some(&[1.0, 2.0, 3.0][..])),
                ("b", &[1, 64, 64][..], None),
                ("c", &[1, 1][..], Some(&[4.0][..]))
            ]
        );
    }
}
