use super::Error;
use super::proto::{Attribute, Graph, Model, Node, Tensor};

/// The first version of ONNX's operators that dequantises by channel.
pub(super) const NEEDED: i64 = 13;
/// The first that can be made into [`NEEDED`] here.
const OLDEST: i64 = 11;
/// The first version of the format that may hold operators of that version.
const IR_VERSION: i64 = 8;

/// Makes a graph of operators of version [`NEEDED`] or later.
///
/// # Errors
/// [`Error::Opset`] for a graph of older operators than version 11, or one whose graphs within would have to be made over.
pub(super) fn raise(model: &mut Model) -> Result<(), Error> {
    let Some(opset) = model.opset_import.iter_mut().find(|opset| opset.is_standard()) else {
        return Err(Error::Opset { found: 0 });
    };
    let found = opset.version.unwrap_or_default();
    if found >= NEEDED {
        return Ok(());
    }
    let holds_graphs = model.graph.iter().flat_map(|graph| &graph.node).any(Node::holds_graphs);
    if found < OLDEST || holds_graphs || !model.functions.is_empty() {
        return Err(Error::Opset { found });
    }
    opset.version = Some(NEEDED);
    model.ir_version = Some(model.ir_version.unwrap_or_default().max(IR_VERSION));
    if let Some(graph) = &mut model.graph {
        raise_nodes(graph);
    }
    Ok(())
}

fn raise_nodes(graph: &mut Graph) {
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        match node.op() {
            "Squeeze" | "Unsqueeze" | "ReduceSum" => to_input(&mut node, "axes", &mut graph.initializer),
            "Split" => to_input(&mut node, "split", &mut graph.initializer),
            "Dropout" => node.attribute.clear(),
            "Softmax" | "LogSoftmax" | "Hardmax" => {
                over_the_rest(node, &mut nodes);
                continue;
            }
            _ => {}
        }
        nodes.push(node);
    }
    graph.node = nodes;
}

/// What was an attribute is the second input.
fn to_input(node: &mut Node, name: &str, initializers: &mut Vec<Tensor>) {
    let Some(at) = node.attribute.iter().position(|attribute| attribute.name.as_deref() == Some(name)) else { return };
    let values = node.attribute.remove(at).ints;
    let input = format!("{}_{name}", node.output.first().map(String::as_str).unwrap_or_default());
    initializers.push(Tensor::ints64(&input, &values));
    node.input.truncate(1);
    node.input.push(input);
}

/// Before version 13 these saw everything from `axis` on as one axis.
fn over_the_rest(mut node: Node, nodes: &mut Vec<Node>) {
    let axis = node.attribute("axis").and_then(|axis| axis.i).unwrap_or(1);
    node.attribute = vec![Attribute::int("axis", -1)];
    if axis == -1 {
        nodes.push(node);
        return;
    }
    let (Some(input), Some(output)) = (node.input.first().cloned(), node.output.first().cloned()) else { return };
    let name = |step: &str| format!("{output}_{step}");
    nodes.push(Node::new("Shape", vec![input.clone()], &name("shape"), Vec::new()));
    nodes.push(Node::new("Flatten", vec![input], &name("flat"), vec![Attribute::int("axis", axis)]));
    node.input = vec![name("flat")];
    node.output = vec![name("spread")];
    nodes.push(node);
    nodes.push(Node::new("Reshape", vec![name("spread"), name("shape")], &output, Vec::new()));
}
