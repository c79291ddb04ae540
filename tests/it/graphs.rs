//! Small ONNX graphs, written by the numbers of onnx.proto's fields.

/// The floats of a graph's tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float {
    /// 32 bits.
    Single,
    /// 16 bits.
    Half,
}

/// The means of an input of this size, put in the place of a yolov8 output with one anchor: centre and size of the one box
/// and the scores of two classes are those of red, green, blue, red, green and blue.
pub fn means(size: u64, float: Float) -> Vec<u8> {
    graph(&means_of("images"), size, float, &[("output0", &[1, 6, 1])])
}

/// The same as [`means`] of single floats, after so many sigmoids of each value.
pub fn slow_means(size: u64, sigmoids: usize) -> Vec<u8> {
    let name = |number: usize| if number == 0 { "images".to_owned() } else { format!("s{number}") };
    let mut nodes: Vec<_> =
        (0..sigmoids).map(|number| node(&[&name(number)], &name(number + 1), "Sigmoid", &[])).collect();
    nodes.extend(means_of(&name(sigmoids)));
    graph(&nodes, size, Float::Single, &[("output0", &[1, 6, 1])])
}

/// The same as [`means`] of single floats where nothing in the picture is red; anything else ends the run with an error.
pub fn failing_means(size: u64) -> Vec<u8> {
    let zero = [number(2, 7), part(8, b"zero"), part(9, &[0; 8])].concat();
    let nodes = [
        node(&["images"], "rows", "ReduceMean", &[ints("axes", 2), int("keepdims", 0)]),
        node(&["rows"], "means", "ReduceMean", &[ints("axes", 2), int("keepdims", 1)]),
        node(&["means", "zero"], "red", "Gather", &[int("axis", 1)]),
        node(&["red"], "up", "Ceil", &[]),
        // INT64.
        node(&["up"], "index", "Cast", &[int("to", 7)]),
        // There is one value there.
        node(&["means", "index"], "picked", "Gather", &[int("axis", 2)]),
        node(&["picked"], "same", "ReduceMax", &[ints("axes", 3), int("keepdims", 0)]),
        node(&["same", "same"], "output0", "Concat", &[int("axis", 1)]),
    ];
    with_initializers(&nodes, size, &[zero])
}

/// A loop that never ends, before [`means`].
pub fn endless(size: u64) -> Vec<u8> {
    // BOOL.
    let yes = [number(2, 9), part(8, b"yes"), part(9, &[1])].concat();
    let scalar = |name: &str, kind| {
        let tensor = [number(1, kind), part(2, &[])].concat();
        [part(1, name.as_bytes()), part(2, &part(1, &tensor))].concat()
    };
    let picture = |name: &str| value(name, &[1, 3, size, size], Float::Single);
    let nodes = [node(&["go on"], "goes on", "Identity", &[]), node(&["before"], "after", "Sigmoid", &[])].concat();
    let inputs = [part(11, &scalar("round", 7)), part(11, &scalar("go on", 9)), part(11, &picture("before"))].concat();
    let outputs = [part(12, &scalar("goes on", 9)), part(12, &picture("after"))].concat();
    let body = [nodes, part(2, b"body"), inputs, outputs].concat();
    // 5 is GRAPH.
    let body = [part(1, b"body"), part(6, &body), number(20, 5)].concat();
    let mut nodes = vec![node(&["", "yes", "images"], "looped", "Loop", &[body])];
    nodes.extend(means_of("looped"));
    with_initializers(&nodes, size, &[yes])
}

/// Four tebibytes of zeros, added to [`means`].
pub fn enormous(size: u64) -> Vec<u8> {
    let shape = [number(1, 1), number(2, 7), part(8, b"shape"), part(9, &(1_u64 << 40).to_le_bytes())].concat();
    let nodes = [
        node(&["shape"], "zeros", "ConstantOfShape", &[]),
        node(&["zeros"], "nothing", "ReduceMax", &[int("keepdims", 0)]),
        node(&["images", "nothing"], "same", "Add", &[]),
    ];
    let nodes = [&nodes[..], &means_of("same")].concat();
    with_initializers(&nodes, size, &[shape])
}

/// [`means`] of single floats, with a tensor that is in another file.
pub fn external(size: u64, file: &str) -> Vec<u8> {
    let place = [part(1, b"location"), part(2, file.as_bytes())].concat();
    let elsewhere = [number(1, 1), number(2, 1), part(8, b"weights"), part(13, &place), number(14, 1)].concat();
    let nodes = [node(&["images", "weights"], "same", "Add", &[])];
    let nodes = [&nodes[..], &means_of("same")].concat();
    with_initializers(&nodes, size, &[elsewhere])
}

fn means_of(input: &str) -> Vec<Vec<u8>> {
    vec![
        node(&[input], "rows", "ReduceMean", &[ints("axes", 2), int("keepdims", 0)]),
        node(&["rows"], "means", "ReduceMean", &[ints("axes", 2), int("keepdims", 1)]),
        node(&["means", "means"], "output0", "Concat", &[int("axis", 1)]),
    ]
}

/// A graph of single floats with tensors of its own.
fn with_initializers(nodes: &[Vec<u8>], size: u64, tensors: &[Vec<u8>]) -> Vec<u8> {
    let tensors = tensors.iter().map(|tensor| part(5, tensor));
    let nodes: Vec<_> = nodes.iter().cloned().chain(tensors).collect();
    graph(&nodes, size, Float::Single, &[("output0", &[1, 6, 1])])
}

/// An ssd-boxes output with a prior for each of three channels: its score is the channel's mean, its box lies between the
/// least and the greatest value.
pub fn spans(size: u64, float: Float) -> Vec<u8> {
    let reduced = |kind, rows, output| {
        [
            node(&["images"], rows, kind, &[ints("axes", 2), int("keepdims", 0)]),
            node(&[rows], output, kind, &[ints("axes", 2), int("keepdims", 1)]),
        ]
    };
    let corners = node(&["least", "least", "most", "most"], "boxes", "Concat", &[int("axis", 2)]);
    let nodes = [
        reduced("ReduceMean", "mean rows", "scores"),
        reduced("ReduceMin", "least rows", "least"),
        reduced("ReduceMax", "most rows", "most"),
    ];
    let nodes = nodes.into_iter().flatten().chain([corners]).collect::<Vec<_>>();
    graph(&nodes, size, float, &[("scores", &[1, 3, 1]), ("boxes", &[1, 3, 4])])
}

/// A model of ONNX's opset 13 from `images` of `[1, 3, size, size]`.
fn graph(nodes: &[Vec<u8>], size: u64, float: Float, outputs: &[(&str, &[u64])]) -> Vec<u8> {
    let input = part(11, &value("images", &[1, 3, size, size], float));
    let outputs = outputs.iter().flat_map(|(name, sides)| part(12, &value(name, sides, float)));
    let graph = nodes.concat().into_iter().chain(part(2, b"graph")).chain(input).chain(outputs).collect::<Vec<_>>();
    [number(1, 7), part(7, &graph), part(8, &number(2, 13))].concat()
}

fn value(name: &str, sides: &[u64], float: Float) -> Vec<u8> {
    // TensorProto.DataType: FLOAT and FLOAT16.
    let kind = if float == Float::Half { 10 } else { 1 };
    let dims = sides.iter().flat_map(|side| part(1, &number(1, *side))).collect::<Vec<_>>();
    let tensor = [number(1, kind), part(2, &dims)].concat();
    [part(1, name.as_bytes()), part(2, &part(1, &tensor))].concat()
}

fn node(inputs: &[&str], output: &str, kind: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let inputs = inputs.iter().flat_map(|input| part(1, input.as_bytes()));
    let attributes = attributes.iter().flat_map(|attribute| part(5, attribute));
    let named = [part(2, output.as_bytes()), part(4, kind.as_bytes())].concat();
    part(1, &inputs.chain(named).chain(attributes).collect::<Vec<_>>())
}

/// Attribute types are in field 20: 2 is INT.
fn int(name: &str, value: u64) -> Vec<u8> {
    [part(1, name.as_bytes()), number(3, value), number(20, 2)].concat()
}

/// 7 is INTS.
fn ints(name: &str, value: u64) -> Vec<u8> {
    [part(1, name.as_bytes()), number(8, value), number(20, 7)].concat()
}

fn part(field: u64, inside: &[u8]) -> Vec<u8> {
    [varint(field << 3 | 2), varint(inside.len() as u64), inside.to_vec()].concat()
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
