use std::collections::{BTreeMap, BTreeSet};

use super::proto::{Graph, Node, element};

/// Channels of a picture at most: a convolution over so few is slower in int8, and loses most.
const PICTURE_CHANNELS: i64 = 4;

/// How much of a graph is computed in int8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breadth {
    /// Everything between the first and the last multiplications by weights.
    Everything,
    /// Of that, what multiplies by weights and what hands numbers on; no curves, such as those of SiLU.
    Linear,
    /// Of that, no convolution of single channels, which have few numbers to make up for a coarse step.
    Dense,
}

impl Breadth {
    /// From the fastest to the most careful.
    pub const ALL: [Self; 3] = [Self::Everything, Self::Linear, Self::Dense];
}

/// Which nodes of a graph are computed in int8, and which of its tensors have steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Indices of nodes, rising.
    pub(super) nodes: BTreeSet<usize>,
    /// Tensors that become int8, but for weights.
    pub(super) tensors: BTreeSet<String>,
    /// Tensors with the steps of another one: what hands it on neither computes nor rounds.
    pub(super) aliases: BTreeMap<String, String>,
}

/// What a node does to numbers, as far as int8 goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Multiplies by weights that are known.
    Weighs,
    /// Hands the numbers of its first input on.
    Moves,
    /// Cuts numbers off: what is cut off has no steps.
    Cuts,
    /// Computes something linear.
    Mixes,
    /// Computes something else.
    Bends,
    /// Stays as it is.
    Other,
}

/// What a plan is made from.
struct View<'a> {
    graph: &'a Graph,
    weights: BTreeMap<&'a str, (Option<i32>, &'a [i64])>,
    producers: BTreeMap<&'a str, usize>,
    consumers: BTreeMap<&'a str, Vec<usize>>,
}

impl Plan {
    /// For a graph whose nodes are in the order of their computation, as ONNX demands.
    pub(super) fn new(graph: &Graph, breadth: Breadth) -> Self {
        let view = View::new(graph);
        let roles: Vec<_> = graph.node.iter().map(|node| view.role(node)).collect();
        let nodes = view.choose(&roles, breadth);
        let mut plan = Self { nodes, tensors: BTreeSet::new(), aliases: BTreeMap::new() };
        for &at in &plan.nodes {
            let node = &graph.node[at];
            for name in view.activations(node, roles[at]) {
                plan.tensors.insert(name.to_owned());
            }
            for name in
                node.output.iter().filter(|name| !name.is_empty() && !view.is_cut_off(name, &plan.nodes, &roles))
            {
                plan.tensors.insert(name.clone());
            }
        }
        // What lies between a weighing node and what cuts it off has no steps, although the latter reads it.
        for &at in &plan.nodes {
            for name in graph.node[at].output.iter().filter(|name| view.is_cut_off(name, &plan.nodes, &roles)) {
                plan.tensors.remove(name);
            }
        }
        for &at in &plan.nodes {
            let node = &graph.node[at];
            if let (Role::Moves, Some(from), Some(to)) = (roles[at], node.input.first(), node.output.first()) {
                let source = plan.aliases.get(from).unwrap_or(from).clone();
                plan.aliases.insert(to.clone(), source);
            }
        }
        plan
    }

    /// Tensors whose range has to be known.
    pub(super) fn ranged(&self) -> impl Iterator<Item = &str> {
        self.tensors.iter().map(String::as_str).filter(|name| !self.aliases.contains_key(*name))
    }
}

impl<'a> View<'a> {
    fn new(graph: &'a Graph) -> Self {
        let weights =
            graph.initializer.iter().map(|tensor| (tensor.name(), (tensor.data_type, &*tensor.dims))).collect();
        let (mut producers, mut consumers) = (BTreeMap::new(), BTreeMap::<_, Vec<_>>::new());
        for (at, node) in graph.node.iter().enumerate() {
            for name in &node.output {
                producers.insert(name.as_str(), at);
            }
            for name in &node.input {
                consumers.entry(name.as_str()).or_default().push(at);
            }
        }
        Self { graph, weights, producers, consumers }
    }

    fn role(&self, node: &Node) -> Role {
        match node.op() {
            "Conv" if self.weighs(node, &[1, 2]) => Role::Weighs,
            "MatMul" if self.weighs(node, &[1]) => Role::Weighs,
            "Gemm" if self.weighs(node, &[1, 2]) && is_plain_gemm(node) => Role::Weighs,
            "Relu" | "Clip" => Role::Cuts,
            "MaxPool" if node.output.len() == 1 => Role::Moves,
            "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Slice" => Role::Moves,
            "Resize" if is_nearest(node) => Role::Moves,
            "Add" | "Concat" | "AveragePool" | "GlobalAveragePool" => Role::Mixes,
            "Sigmoid" | "Mul" => Role::Bends,
            _ => Role::Other,
        }
    }

    /// Whether these inputs, as far as they are there, are known floats.
    fn weighs(&self, node: &Node, inputs: &[usize]) -> bool {
        let is_known = |name: &String| name.is_empty() || self.is_float_weight(name);
        node.input.get(1).is_some_and(|name| !name.is_empty())
            && inputs.iter().filter_map(|at| node.input.get(*at)).all(is_known)
    }

    fn is_float_weight(&self, name: &str) -> bool {
        self.weights.get(name).is_some_and(|(kind, _)| *kind == Some(element::FLOAT))
    }

    fn choose(&self, roles: &[Role], breadth: Breadth) -> BTreeSet<usize> {
        let tail = self.tail(roles);
        let mut chosen = BTreeSet::new();
        for (at, node) in self.graph.node.iter().enumerate().filter(|(at, _)| !tail.contains(at)) {
            let from_chosen =
                |name: &String| self.producers.get(name.as_str()).is_some_and(|from| chosen.contains(from));
            let takes = match roles[at] {
                Role::Weighs => !self.is_stem(node) && (breadth != Breadth::Dense || !self.is_by_channel(node)),
                // Other inputs say where to, not what.
                Role::Moves => node.input.first().is_some_and(from_chosen),
                Role::Cuts => {
                    let from = node.input.first().and_then(|name| self.producers.get(name.as_str()));
                    from.is_some_and(|from| chosen.contains(from) && roles[*from] != Role::Moves)
                }
                Role::Mixes => node.input.iter().any(from_chosen),
                Role::Bends => breadth == Breadth::Everything && node.input.iter().any(from_chosen),
                Role::Other => false,
            };
            if takes && self.is_float(node, roles[at]) {
                chosen.insert(at);
            }
        }
        chosen
    }

    /// Whether all that it computes with is floats, as far as is known: integers are neither activations of a network nor
    /// known as weights.
    fn is_float(&self, node: &Node, role: Role) -> bool {
        let inputs = if role == Role::Moves || role == Role::Cuts { &node.input[..1] } else { &node.input[..] };
        inputs.iter().all(|name| self.weights.get(name.as_str()).is_none_or(|(kind, _)| *kind == Some(element::FLOAT)))
    }

    /// The last weighing nodes and everything behind them: what they say is read as numbers, not as features.
    fn tail(&self, roles: &[Role]) -> BTreeSet<usize> {
        let mut reaches = BTreeSet::new();
        for (at, node) in self.graph.node.iter().enumerate().rev() {
            let behind = node.output.iter().filter_map(|name| self.consumers.get(name.as_str())).flatten();
            if behind.into_iter().any(|to| roles[*to] == Role::Weighs || reaches.contains(to)) {
                reaches.insert(at);
            }
        }
        let mut tail = BTreeSet::new();
        for (at, node) in self.graph.node.iter().enumerate() {
            let is_last = roles[at] == Role::Weighs && !reaches.contains(&at);
            let from_tail = |name: &String| self.producers.get(name.as_str()).is_some_and(|from| tail.contains(from));
            if is_last || node.input.iter().any(from_tail) {
                tail.insert(at);
            }
        }
        tail
    }

    /// Whether it looks at the picture itself.
    fn is_stem(&self, node: &Node) -> bool {
        let is_picture = node.input.first().is_some_and(|name| !self.producers.contains_key(name.as_str()));
        let channels =
            node.input.get(1).and_then(|name| self.weights.get(name.as_str())).and_then(|(_, dims)| dims.get(1));
        is_picture && node.op() == "Conv" && channels.is_some_and(|channels| *channels <= PICTURE_CHANNELS)
    }

    /// Whether each output channel comes from one input channel.
    fn is_by_channel(&self, node: &Node) -> bool {
        let channels =
            node.input.get(1).and_then(|name| self.weights.get(name.as_str())).and_then(|(_, dims)| dims.get(1));
        node.op() == "Conv" && channels == Some(&1)
    }

    /// The tensors that a chosen node computes with, but for weights.
    fn activations<'n>(&'n self, node: &'n Node, role: Role) -> impl Iterator<Item = &'n str> {
        let most = if matches!(role, Role::Mixes | Role::Bends) { usize::MAX } else { 1 };
        let all = role == Role::Mixes || role == Role::Bends;
        node.input.iter().take(most).map(String::as_str).filter(move |name| {
            // Known operands of sums and products have steps, too.
            !name.is_empty() && (all || !self.weights.contains_key(name))
        })
    }

    /// Whether all that becomes of a weighing or mixing node's output is cut off at once, by a chosen node.
    fn is_cut_off(&self, name: &str, chosen: &BTreeSet<usize>, roles: &[Role]) -> bool {
        let by = self.consumers.get(name).map(Vec::as_slice).unwrap_or_default();
        let is_output = self.graph.output.iter().any(|output| output.name.as_deref() == Some(name));
        let from = self.producers.get(name);
        !is_output
            && from.is_some_and(|from| matches!(roles[*from], Role::Weighs | Role::Mixes))
            && matches!(by, [only] if chosen.contains(only) && roles[*only] == Role::Cuts)
    }
}

/// The one resampling that makes no new numbers.
fn is_nearest(node: &Node) -> bool {
    node.attribute("mode").is_none_or(|mode| mode.s.as_deref() == Some(b"nearest"))
}

/// Without factors, which int8 would have to know.
fn is_plain_gemm(node: &Node) -> bool {
    let is_one = |name| node.attribute(name).is_none_or(|factor| factor.f == Some(1.0));
    let is_straight = node.attribute("transA").is_none_or(|turned| turned.i == Some(0));
    is_one("alpha") && is_one("beta") && is_straight
}
