//! From a graph in fp32 to one in int8, by the numbers that its tensors have on pictures like those that it is for.
//!
//! [`Draft`] is the graph with plans of what is to be computed in int8; its [`Draft::observing`] graph tells the ranges of
//! tensors when it is run, [`Draft::observe`] takes them, and [`Draft::quantized`] is the result, in the QDQ format of ONNX's
//! own operators: activations in 8 bits with a zero of their own, weights in 8 bits with a scale for each output channel
//! (Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference", 2018, section 3). The first convolution
//! over a picture and the last multiplications by weights, with all that is behind them, stay in fp32.

mod opset;
mod plan;
mod proto;
mod range;
mod rewrite;

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;

pub use self::plan::Breadth;
use self::plan::Plan;
use self::proto::{Model, Tensor};
use self::range::Observed;

/// Why a graph is not quantised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The file is no ONNX.
    #[error("the file is no ONNX model: {reason}")]
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
    /// Its operators are of a version that can't say what has to be said.
    #[error(
        "its operators are of version {found}, and 13 is needed: export it anew, or convert it with onnx.version_converter"
    )]
    Opset {
        /// Version of the operators; 0: it has none of ONNX's own.
        found: i64,
    },
    /// Nothing in it can be computed in int8.
    #[error(
        "nothing in it would be faster in int8: there are no convolutions or products by known weights between the first and the last"
    )]
    Nothing,
    /// A tensor's numbers were never seen.
    #[error("the numbers of `{tensor}` were never seen, or are not finite")]
    NoRange {
        /// Its name.
        tensor: String,
    },
}

/// A graph on its way to int8.
#[derive(Debug)]
pub struct Draft {
    model: Model,
    /// From the fastest to the most careful.
    plans: Vec<(Breadth, Plan)>,
    observed: BTreeMap<String, Observed>,
}

impl Draft {
    /// Reads a graph in fp32, best one in which constants are folded and normalisation is part of convolutions.
    ///
    /// # Errors
    /// [`Error::Unreadable`], [`Error::Opset`], [`Error::Nothing`].
    pub fn new(file: &[u8]) -> Result<Self, Error> {
        let mut model = Model::decode(file).map_err(|error| Error::Unreadable { reason: error.to_string() })?;
        opset::raise(&mut model)?;
        let graph = model.graph.as_ref().ok_or(Error::Nothing)?;
        let mut plans: Vec<(Breadth, Plan)> = Vec::new();
        for breadth in Breadth::ALL {
            let plan = Plan::new(graph, breadth);
            if !plan.nodes.is_empty() && plans.iter().all(|(_, other)| *other != plan) {
                plans.push((breadth, plan));
            }
        }
        if plans.is_empty() {
            return Err(Error::Nothing);
        }
        let known: BTreeSet<&str> = graph.initializer.iter().map(Tensor::name).collect();
        let ranged = plans.iter().flat_map(|(_, plan)| plan.ranged()).filter(|name| !known.contains(name));
        let observed = ranged.map(|name| (name.to_owned(), Observed::default())).collect();
        Ok(Self { model, plans, observed })
    }

    /// The breadths that differ for this graph, from the fastest to the most careful, each with the number of nodes that it
    /// has computed in int8.
    pub fn breadths(&self) -> impl Iterator<Item = (Breadth, usize)> {
        self.plans.iter().map(|(breadth, plan)| (*breadth, plan.nodes.len()))
    }

    /// A graph with the same inputs whose outputs are what [`Self::observe`] takes, each a single number.
    #[must_use]
    pub fn observing(&self) -> Vec<u8> {
        let names = self.observed.keys().map(String::as_str);
        let graph = self.model.graph.as_ref().map(|graph| rewrite::observing(graph, names));
        Model { graph, ..self.model.clone() }.encode_to_vec()
    }

    /// Takes one picture's outputs of the observing graph, by their names.
    pub fn observe(&mut self, output: impl Fn(&str) -> Option<f32>) {
        for (name, observed) in &mut self.observed {
            let least = output(&format!("{name}{}", rewrite::LEAST));
            let most = output(&format!("{name}{}", rewrite::MOST));
            if let Some((least, most)) = least.zip(most) {
                observed.add(least, most);
            }
        }
    }

    /// The graph in int8, as far as `breadth` goes.
    ///
    /// # Errors
    /// [`Error::NoRange`]; [`Error::Nothing`] for one that is not among [`Self::breadths`].
    pub fn quantized(&self, breadth: Breadth) -> Result<Vec<u8>, Error> {
        let (_, plan) = self.plans.iter().find(|(other, _)| *other == breadth).ok_or(Error::Nothing)?;
        let ranges =
            self.observed.iter().filter_map(|(name, observed)| Some((name.clone(), observed.range()?))).collect();
        let graph = self.model.graph.as_ref().map(|graph| rewrite::quantized(graph, plan, &ranges)).transpose()?;
        Ok(Model { graph, ..self.model.clone() }.encode_to_vec())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::proto::{Attribute, Graph, Node, Opset, ValueInfo, element};
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    /// picture → conv → relu → conv → sigmoid, × → conv by channel → relu → conv → exp: only from the first relu to the last conv
    /// there is something to gain.
    fn network() -> Model {
        let weight = |name: &str, dims: [i64; 4]| {
            let values: Vec<f32> = (0..dims.iter().product::<i64>()).map(|n| (n % 7) as f32 - 3.0).collect();
            Tensor::floats(name, dims.to_vec(), &values)
        };
        let node = |op: &str, input: &[&str], output: &str| Node::new(op, names(input), output, Vec::new());
        let graph = Graph {
            node: vec![
                node("Conv", &["picture", "w0"], "a0"),
                node("Relu", &["a0"], "a1"),
                node("Conv", &["a1", "w1", "b1"], "a2"),
                node("Sigmoid", &["a2"], "a3"),
                node("Mul", &["a2", "a3"], "a4"),
                node("MaxPool", &["a4"], "a5"),
                node("Conv", &["a5", "w2"], "a6"),
                node("Relu", &["a6"], "a7"),
                node("Conv", &["a7", "w3"], "a8"),
                node("Exp", &["a8"], "out"),
            ],
            initializer: vec![
                weight("w0", [4, 3, 1, 1]),
                weight("w1", [4, 4, 1, 1]),
                Tensor::floats("b1", vec![4], &[1.0, -2.0, 3.0, 0.0]),
                weight("w2", [4, 1, 1, 1]),
                weight("w3", [2, 4, 1, 1]),
            ],
            input: vec![ValueInfo::tensor("picture", element::FLOAT)],
            output: vec![ValueInfo::tensor("out", element::FLOAT)],
            ..Graph::default()
        };
        let opset = Opset { domain: None, version: Some(13) };
        Model { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..Model::default() }
    }

    fn draft(model: &Model) -> Draft {
        Draft::new(&model.encode_to_vec()).unwrap()
    }

    fn graph(file: &[u8]) -> Graph {
        Model::decode(file).unwrap().graph.unwrap()
    }

    fn tensor<'a>(graph: &'a Graph, name: &str) -> &'a Tensor {
        graph.initializer.iter().find(|tensor| tensor.name() == name).unwrap()
    }

    #[test]
    fn the_first_look_at_the_picture_and_the_last_layer_stay_as_they_are() {
        let draft = draft(&network());
        let nodes: Vec<Vec<usize>> = draft.plans.iter().map(|(_, plan)| plan.nodes.iter().copied().collect()).collect();
        assert_eq!(nodes, [vec![2, 3, 4, 5, 6, 7], vec![2, 6, 7], vec![2]]);
        // Between the third convolution and its ReLU nothing is rounded; what the pooling hands on has the steps of its source.
        let seen: Vec<&str> = draft.observed.keys().map(String::as_str).collect();
        assert_eq!(seen, ["a1", "a2", "a3", "a4", "a5", "a7"]);
        let (_, everything) = &draft.plans[0];
        assert_eq!(everything.ranged().collect::<Vec<_>>(), ["a1", "a2", "a3", "a4", "a7"]);
    }

    #[test]
    fn what_is_watched_comes_out_as_two_numbers_a_tensor() {
        let observing = graph(&draft(&network()).observing());
        assert_eq!(observing.output.len(), 12);
        assert_eq!(observing.output[0].name(), "a1__least");
        assert_eq!(observing.node.last().unwrap().op(), "ReduceMax");
        assert_eq!(observing.input.len(), 1);
    }

    #[test]
    fn weights_have_a_step_a_channel_and_biases_those_of_their_products() {
        let mut draft = draft(&network());
        draft.observe(|name| Some(if name.ends_with("least") { -1.0 } else { 4.1 }));
        draft.observe(|name| Some(if name.ends_with("least") { -1.0 } else { 4.1 }));
        let quantized = graph(&draft.quantized(Breadth::Linear).unwrap());
        let scales = tensor(&quantized, "w1__scale").values().unwrap();
        // The greatest of -3, -2, -1, 0; of 1, 2, 3, -3; of -2, -1, 0, 1; and of 2, 3, -3, -2.
        assert_eq!(scales, [3.0 / 127.0, 3.0 / 127.0, 2.0 / 127.0, 3.0 / 127.0]);
        assert_eq!(tensor(&quantized, "w1__int8").dims, [4, 4, 1, 1]);
        let whole: Vec<i8> = tensor(&quantized, "w1__int8").raw_data().iter().map(|byte| byte.cast_signed()).collect();
        assert_eq!(whole[..4], [-127, -85, -42, 0]);
        let step = 5.1f32 / 255.0;
        assert_eq!(tensor(&quantized, "a1__scale").values().unwrap(), [step]);
        assert_eq!(tensor(&quantized, "a1__zero").raw_data(), [50]);
        let bias: Vec<i32> = tensor(&quantized, "a2__bias__int32")
            .raw_data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| i32::from_le_bytes(*bytes))
            .collect();
        let one = (1.0 / (f64::from(step) * 3.0 / 127.0)).round() as i32;
        assert!((bias[0] - one).abs() <= 1 && (bias[1] + 2 * one).abs() <= 2 && bias[3] == 0, "{bias:?} {one}");
        // The weights in fp32 are gone where nobody reads them any more, and stay where somebody does.
        let kept: Vec<&str> = ["w0", "w1", "b1", "w2", "w3"]
            .into_iter()
            .filter(|name| quantized.initializer.iter().any(|tensor| tensor.name() == *name))
            .collect();
        assert_eq!(kept, ["w0", "w3"]);
        let read = |op: &str, output: &str| {
            quantized.node.iter().find(|node| node.op() == op && node.output[0] == output).unwrap().input[0].clone()
        };
        assert_eq!(read("Conv", "a2"), "a1__rounded");
        assert_eq!(read("Relu", "a7"), "a6", "nothing is rounded before it is cut off");
        assert_eq!(read("Sigmoid", "a3"), "a2__rounded", "what was computed in int8 is read as that");
        assert_eq!(read("Conv", "a0"), "picture");
    }

    #[test]
    fn a_tensor_that_was_never_seen_is_an_error() {
        let draft = draft(&network());
        assert_eq!(draft.quantized(Breadth::Dense), Err(Error::NoRange { tensor: "a1".to_owned() }));
        let mut nan = self::draft(&network());
        nan.observe(|_| Some(f32::NAN));
        assert!(matches!(nan.quantized(Breadth::Dense), Err(Error::NoRange { .. })));
    }

    #[test]
    fn operators_of_older_versions_are_made_over_as_far_as_that_goes() {
        let mut old = network();
        old.opset_import[0].version = Some(11);
        let graph = old.graph.as_mut().unwrap();
        let unsqueeze = Node {
            attribute: vec![Attribute { ints: vec![0, 2], ..Attribute::int("axes", 0) }],
            ..Node::new("Unsqueeze", names(&["out"]), "u", Vec::new())
        };
        graph.node.push(unsqueeze);
        graph.node.push(Node::new("Softmax", names(&["u"]), "s", vec![Attribute::int("axis", 2)]));
        let raised = draft(&old).model;
        assert_eq!(raised.opset_import[0].version, Some(13));
        let graph = raised.graph.unwrap();
        let ops: Vec<&str> = graph.node[10..].iter().map(Node::op).collect();
        assert_eq!(ops, ["Unsqueeze", "Shape", "Flatten", "Softmax", "Reshape"]);
        assert_eq!(graph.node[10].input, ["out", "u_axes"]);
        assert_eq!(tensor(&graph, "u_axes").raw_data().len(), 16);
        assert_eq!(graph.node.last().unwrap().output, ["s"]);
        old.opset_import[0].version = Some(10);
        assert_eq!(Draft::new(&old.encode_to_vec()).unwrap_err(), Error::Opset { found: 10 });
    }

    #[test]
    fn what_is_no_network_is_refused() {
        assert!(matches!(Draft::new(b"no model at all"), Err(Error::Unreadable { .. })));
        let mut model = network();
        model.graph.as_mut().unwrap().node.truncate(2);
        assert_eq!(Draft::new(&model.encode_to_vec()).unwrap_err(), Error::Nothing);
    }

    #[test]
    fn what_is_not_read_is_handed_on() {
        let mut model = network();
        model.metadata_props.push(b"\x0a\x01k\x12\x01v".to_vec());
        model.graph.as_mut().unwrap().node[9]
            .attribute
            .push(Attribute { g: Some(Vec::new()), ..Attribute::int("body", 0) });
        let again = Model::decode(&*model.encode_to_vec()).unwrap();
        assert_eq!(again, model);
    }
}
