use std::collections::{BTreeMap, BTreeSet};

use super::Error;
use super::plan::Plan;
use super::proto::{Attribute, Graph, Node, Tensor, ValueInfo, element};
use super::range::{Range, Steps};

/// Endings of the outputs that tell of tensors' ranges.
pub(super) const LEAST: &str = "__least";
pub(super) const MOST: &str = "__most";

/// A graph whose outputs are the least and the greatest number of each of these tensors.
pub(super) fn observing<'a>(graph: &Graph, tensors: impl Iterator<Item = &'a str>) -> Graph {
    let mut graph = graph.clone();
    graph.output.clear();
    for name in tensors {
        for (op, ending) in [("ReduceMin", LEAST), ("ReduceMax", MOST)] {
            let output = format!("{name}{ending}");
            graph.node.push(Node::new(op, vec![name.to_owned()], &output, vec![Attribute::int("keepdims", 0)]));
            graph.output.push(ValueInfo::tensor(&output, element::FLOAT));
        }
    }
    graph
}

/// Puts the plan's steps into a graph: each of its tensors is rounded to them behind what makes it and before what reads it,
/// weights are kept as int8, and biases as int32 in the steps of their products. Runtimes then compute what lies between in
/// integers (ONNX Runtime, "Quantize ONNX models", on the QDQ format).
///
/// # Errors
/// [`Error::NoRange`] for a tensor that was never seen.
pub(super) fn quantized(graph: &Graph, plan: &Plan, ranges: &BTreeMap<String, Range>) -> Result<Graph, Error> {
    let mut rewrite =
        Rewrite { graph, plan, ranges, initializers: Vec::new(), weights: BTreeMap::new(), known: BTreeMap::new() };
    rewrite.known = graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
    rewrite.run()
}

struct Rewrite<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    ranges: &'a BTreeMap<String, Range>,
    known: BTreeMap<&'a str, &'a Tensor>,
    initializers: Vec<Tensor>,
    /// Weights that are int8 already, by their name and axis.
    weights: BTreeMap<(String, Option<usize>), String>,
}

impl Rewrite<'_> {
    fn run(mut self) -> Result<Graph, Error> {
        let made: BTreeSet<&str> = self.graph.node.iter().flat_map(|node| &node.output).map(String::as_str).collect();
        let mut nodes = Vec::with_capacity(self.graph.node.len() * 2);
        // Pictures and known operands come before every node.
        for name in self.plan.tensors.iter().filter(|name| !made.contains(name.as_str())) {
            self.round(name, &mut nodes)?;
        }
        let by_chosen: BTreeSet<&str> =
            self.plan.nodes.iter().flat_map(|at| &self.graph.node[*at].output).map(String::as_str).collect();
        for (at, node) in self.graph.node.iter().enumerate() {
            let mut node = node.clone();
            let is_chosen = self.plan.nodes.contains(&at);
            for name in &mut node.input {
                // Whoever computes in floats has the exact numbers where there are such.
                if self.plan.tensors.contains(name) && (is_chosen || by_chosen.contains(name.as_str())) {
                    *name = rounded(name);
                }
            }
            if is_chosen {
                self.weigh(&mut node, &self.graph.node[at], &mut nodes)?;
            }
            let outputs: Vec<_> =
                node.output.iter().filter(|name| self.plan.tensors.contains(*name)).cloned().collect();
            nodes.push(node);
            for name in outputs {
                self.round(&name, &mut nodes)?;
            }
        }
        let read: BTreeSet<&str> = nodes.iter().flat_map(|node| &node.input).map(String::as_str).collect();
        let outputs: BTreeSet<&str> = self.graph.output.iter().filter_map(|output| output.name.as_deref()).collect();
        let holds_graphs = nodes.iter().any(Node::holds_graphs);
        let is_kept = |name: &str| holds_graphs || read.contains(name) || outputs.contains(name);
        let mut initializer: Vec<_> =
            self.graph.initializer.iter().filter(|tensor| is_kept(tensor.name())).cloned().collect();
        initializer.append(&mut self.initializers);
        let input = self.graph.input.iter().filter(|input| {
            // Old files list their weights among the inputs.
            let name = input.name.as_deref().unwrap_or_default();
            !self.known.contains_key(name) || is_kept(name)
        });
        let input = input.cloned().collect();
        Ok(Graph { node: nodes, initializer, input, ..self.graph.clone() })
    }

    /// Rounds a tensor to its steps.
    fn round(&mut self, name: &str, nodes: &mut Vec<Node>) -> Result<(), Error> {
        let steps = self.steps(name)?;
        let (scale, zero) = (format!("{name}__scale"), format!("{name}__zero"));
        self.initializers.push(Tensor::floats(&scale, Vec::new(), &[steps.scale]));
        self.initializers.push(Tensor::raw(&zero, Vec::new(), element::UINT8, vec![steps.zero]));
        let whole = format!("{name}__whole");
        nodes.push(Node::new("QuantizeLinear", vec![name.to_owned(), scale.clone(), zero.clone()], &whole, Vec::new()));
        nodes.push(Node::new("DequantizeLinear", vec![whole, scale, zero], &rounded(name), Vec::new()));
        Ok(())
    }

    fn steps(&self, name: &str) -> Result<Steps, Error> {
        let name = self.plan.aliases.get(name).map_or(name, String::as_str);
        if let Some(values) = self.known.get(name).and_then(|tensor| tensor.values()) {
            return Ok(Range::of(&values).steps());
        }
        let range = self.ranges.get(name).ok_or_else(|| Error::NoRange { tensor: name.to_owned() })?;
        Ok(range.steps())
    }

    /// Makes the weights of a node int8. `original` has the names from before.
    fn weigh(&mut self, node: &mut Node, original: &Node, nodes: &mut Vec<Node>) -> Result<(), Error> {
        let by_channel = match original.op() {
            "Conv" => true,
            "Gemm" | "MatMul" => false,
            _ => return Ok(()),
        };
        let [input, weight, ..] = original.input.as_slice() else { return Ok(()) };
        let Some((values, dims)) =
            self.known.get(weight.as_str()).and_then(|tensor| Some((tensor.values()?, tensor.dims.clone())))
        else {
            return Ok(());
        };
        let channels =
            if by_channel { dims.first().copied().and_then(|side| usize::try_from(side).ok()).unwrap_or(1) } else { 1 };
        let scales = weight_scales(&values, channels);
        let key = (weight.clone(), by_channel.then_some(0));
        let whole = match self.weights.get(&key) {
            Some(name) => name.clone(),
            None => {
                let name = self.round_weights(weight, dims, &values, &scales, by_channel, nodes);
                self.weights.insert(key, name.clone());
                name
            }
        };
        node.input[1] = whole;
        if let Some(bias) = original.input.get(2).filter(|name| !name.is_empty()) {
            let input_scale = self.steps(input)?.scale;
            if let Some((values, dims)) =
                self.known.get(bias.as_str()).and_then(|tensor| Some((tensor.values()?, tensor.dims.clone())))
            {
                node.input[2] = self.round_bias(&original.output[0], &values, dims, input_scale, &scales, nodes);
            }
        }
        Ok(())
    }

    fn round_weights(
        &mut self,
        name: &str,
        dims: Vec<i64>,
        values: &[f32],
        scales: &[f32],
        by_channel: bool,
        nodes: &mut Vec<Node>,
    ) -> String {
        let of_channel = (values.len() / scales.len()).max(1);
        let whole: Vec<u8> = values
            .chunks(of_channel)
            .zip(scales)
            .flat_map(|(values, scale)| values.iter().map(move |value| to_int8(value / scale).cast_unsigned()))
            .collect();
        let (whole_name, scale, zero) = (format!("{name}__int8"), format!("{name}__scale"), format!("{name}__zero"));
        self.initializers.push(Tensor::raw(&whole_name, dims, element::INT8, whole));
        self.of_channels(&scale, &zero, element::INT8, scales, by_channel);
        let output = rounded(name);
        let attributes = if by_channel { vec![Attribute::int("axis", 0)] } else { Vec::new() };
        nodes.push(Node::new("DequantizeLinear", vec![whole_name, scale, zero], &output, attributes));
        output
    }

    fn round_bias(
        &mut self,
        of: &str,
        values: &[f32],
        dims: Vec<i64>,
        input_scale: f32,
        scales: &[f32],
        nodes: &mut Vec<Node>,
    ) -> String {
        let name = format!("{of}__bias");
        let steps: Vec<f32> = scales.iter().map(|scale| scale * input_scale).collect();
        let whole: Vec<i32> = values
            .iter()
            .zip(steps.iter().cycle())
            .map(|(value, step)| to_int32(f64::from(*value) / f64::from(*step)))
            .collect();
        let (whole_name, scale, zero) = (format!("{name}__int32"), format!("{name}__scale"), format!("{name}__zero"));
        self.initializers.push(Tensor::ints32(&whole_name, dims, &whole));
        let by_channel = steps.len() > 1;
        self.of_channels(&scale, &zero, element::INT32, &steps, by_channel);
        let attributes = if by_channel { vec![Attribute::int("axis", 0)] } else { Vec::new() };
        nodes.push(Node::new("DequantizeLinear", vec![whole_name, scale, zero], &name, attributes));
        name
    }

    /// Scales and zeros, one a channel or one for all.
    fn of_channels(&mut self, scale: &str, zero: &str, kind: i32, scales: &[f32], by_channel: bool) {
        let dims = || if by_channel { vec![i64::try_from(scales.len()).unwrap_or(i64::MAX)] } else { Vec::new() };
        let width = if kind == element::INT32 { 4 } else { 1 };
        self.initializers.push(Tensor::floats(scale, dims(), scales));
        self.initializers.push(Tensor::raw(zero, dims(), kind, vec![0; scales.len() * width]));
    }
}

/// Name of a tensor after rounding.
fn rounded(name: &str) -> String {
    format!("{name}__rounded")
}

/// One symmetric scale for each channel, whose values lie together.
fn weight_scales(values: &[f32], channels: usize) -> Vec<f32> {
    let of_channel = (values.len() / channels.max(1)).max(1);
    let scale = |values: &[f32]| {
        let most = values.iter().fold(0f32, |most, value| most.max(value.abs()));
        if most > f32::MIN_POSITIVE * 127.0 && most.is_finite() { most / 127.0 } else { 1.0 }
    };
    values.chunks(of_channel).map(scale).collect()
}

#[expect(clippy::cast_possible_truncation, reason = "clamped")]
fn to_int8(value: f32) -> i8 {
    value.round_ties_even().clamp(-127.0, 127.0) as i8
}

#[expect(clippy::cast_possible_truncation, reason = "saturates")]
fn to_int32(value: f64) -> i32 {
    value.round_ties_even() as i32
}
