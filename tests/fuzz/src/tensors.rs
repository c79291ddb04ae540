use bytes::Bytes;
use saccade::kserve::compression::Encoding;
use saccade::kserve::rest::{Body, Wanted, read, write};
use saccade::kserve::{MAX_RANK, MAX_TENSORS, Request, Response, Tensor};

/// Bytes of a request's tensors at most.
const LIMIT: usize = 16 * 1024;

/// A request of the inference protocol. The first byte says whether it is compressed and whether bytes follow the JSON; then
/// where they begin is said by two more.
pub(crate) fn request(data: &[u8]) {
    let Some((&[how, low, high], body)) = data.split_first_chunk::<3>() else { return };
    let body = match how & 3 {
        1 => Encoding::Gzip.inflate(body, LIMIT),
        2 => Encoding::Deflate.inflate(body, LIMIT),
        _ => Ok(Bytes::copy_from_slice(body)),
    };
    let Ok(body) = body else { return };
    assert!(how & 3 == 0 || how & 3 == 3 || body.len() <= LIMIT);
    let header = (how & 4 != 0).then(|| usize::from(u16::from_le_bytes([low, high])));
    let Ok(Body::Request(request, _)) = read(&body, header, LIMIT) else { return };
    assert!(request.inputs.len() <= MAX_TENSORS && request.outputs.len() <= MAX_TENSORS);
    let total: usize = request.inputs.iter().map(|tensor| tensor.data.len()).sum();
    assert!(total <= LIMIT, "{total} bytes of tensors");
    for tensor in &request.inputs {
        assert!(tensor.shape.len() <= MAX_RANK && tensor.shape.iter().all(|side| *side >= 0));
        if let Some(size) = tensor.datatype.size() {
            assert_eq!(tensor.elements() * size, tensor.data.len());
        }
    }
    for binary in [true, false] {
        come_back(&request, binary);
    }
}

/// What is written as an answer says what went in.
fn come_back(request: &Request, binary: bool) {
    let response = Response { outputs: request.inputs.clone(), id: request.id.clone(), ..Response::default() };
    let written = write(&response, &Wanted { binary, except: Vec::new() });
    assert!(written.is_ok() || !binary, "bytes can always be written");
    let Ok((body, head)) = written else { return };
    assert_eq!(head.is_some(), binary && !response.outputs.is_empty());
    let json: serde_json::Value = serde_json::from_slice(&body[..head.unwrap_or(body.len())]).unwrap();
    let mut again = serde_json::json!({ "id": request.id, "inputs": json["outputs"] }).to_string().into_bytes();
    let length = again.len();
    again.extend_from_slice(&body[head.unwrap_or(body.len())..]);
    // What JSON makes of 16-bit floats takes more room.
    match read(&Bytes::from(again), Some(length), 8 * LIMIT) {
        Ok(Body::Request(back, _)) => same(&back.inputs, &request.inputs),
        other => panic!("{other:?}"),
    }
}

fn same(back: &[Tensor], sent: &[Tensor]) {
    assert_eq!(back.len(), sent.len());
    for (back, sent) in back.iter().zip(sent) {
        assert_eq!((&back.name, &back.shape, back.datatype), (&sent.name, &sent.shape, sent.datatype));
        assert_eq!(back.data, sent.data, "{}", sent.name);
    }
}
