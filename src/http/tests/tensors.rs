//! The inference protocol, with a model that doubles numbers.

use std::convert::Infallible;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;

use super::*;
use crate::kserve::{
    DataType, Entry, Error, Metadata, Models as Tensors, Named, Outlet, Request as Asked, Response as Found,
    Statistics, Tensor,
};
use crate::traces::Trail;

pub(super) struct Doubler;

#[async_trait]
impl Tensors for Doubler {
    fn is_ready(&self) -> bool {
        true
    }

    fn is_model_ready(&self, model: Named<'_>) -> Result<bool, Error> {
        if model.name == "double" { Ok(true) } else { Err(model.unknown()) }
    }

    fn index(&self) -> Vec<Entry> {
        let entry = |name: &str, ready, reason: &str| Entry {
            name: name.to_owned(),
            version: "1".to_owned(),
            ready,
            reason: reason.to_owned(),
        };
        vec![entry("double", true, ""), entry("broken", false, "no graph")]
    }

    async fn metadata(&self, model: Named<'_>) -> Result<Arc<Metadata>, Error> {
        self.is_model_ready(model)?;
        let outlet = |name: &str| Outlet { name: name.to_owned(), datatype: DataType::Fp32, shape: vec![-1, 2] };
        Ok(Arc::new(Metadata {
            name: "double".to_owned(),
            version: "1".to_owned(),
            versions: vec!["1".to_owned()],
            platform: "test".to_owned(),
            inputs: vec![outlet("x")],
            outputs: vec![outlet("y")],
            max_batch: 4,
            instances: 1,
        }))
    }

    async fn infer(&self, model: Named<'_>, request: Asked, _: &Trail) -> Result<Found, Error> {
        self.metadata(model).await?.check(&request)?;
        let input = &request.inputs[0];
        let numbers = input.data.as_chunks().0.iter().flat_map(|it| (2.0 * f32::from_le_bytes(*it)).to_le_bytes());
        let (shape, data) = (input.shape.clone(), numbers.collect());
        let outputs = vec![Tensor::new("y".to_owned(), DataType::Fp32, shape, data)?];
        Ok(Found { model: "double".to_owned(), version: "1".to_owned(), id: request.id, outputs })
    }

    fn statistics(&self, _: Option<Named<'_>>) -> Result<Vec<Statistics>, Error> {
        Ok(Vec::new())
    }

    async fn load(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    async fn unload(&self, _: &str) -> Result<(), Error> {
        Err(Error::Conflict { problem: "somebody needs it".to_owned() })
    }
}

const INFER: &str = "/v2/models/double/infer";

/// Status, headers and body of an answer.
async fn send(
    site: &Site,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, HeaderMap, Vec<u8>) {
    let mut request = Request::builder().method(method).uri(path).header("host", "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = site.router.clone().oneshot(request.body(Body::from(body.to_vec())).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    (parts.status.as_u16(), parts.headers, body.to_vec())
}

async fn ask(site: &Site, body: &Value) -> (u16, Value) {
    let (status, _, body) = send(site, "POST", INFER, &[], body.to_string().as_bytes()).await;
    (status, serde_json::from_slice(&body).unwrap())
}

fn numbers(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[tokio::test]
async fn tensors_go_in_and_out_as_json() {
    let site = plain();
    let body = json!({
        "id": "7",
        "inputs": [{"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2.5], [-3, 4e1]]}],
        "outputs": [{"name": "y"}]
    });
    let (status, answer) = ask(&site, &body).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer,
        json!({
            "model_name": "double", "model_version": "1", "id": "7",
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [2.0, 5.0, -6.0, 80.0]}]
        })
    );
}

#[tokio::test]
async fn tensors_go_in_and_out_as_bytes_compressed_or_not() {
    let site = plain();
    let head = json!({
        "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
        "parameters": {"binary_data_output": true}
    });
    let head = head.to_string();
    let body = [head.as_bytes(), &numbers(&[1.0, f32::INFINITY])].concat();
    let length = head.len().to_string();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&body).unwrap();
    let packed = packed.finish().unwrap();
    let plainly = vec![("inference-header-content-length", length.as_str())];
    let gzip = [plainly.clone(), vec![("content-encoding", "gzip")]].concat();
    for (headers, body) in [(plainly, body), (gzip, packed)] {
        let (status, headers, body) = send(&site, "POST", INFER, &headers, &body).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        assert_eq!(headers["content-type"], "application/octet-stream");
        let length: usize = headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
        let head: Value = serde_json::from_slice(&body[..length]).unwrap();
        assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], 8);
        assert_eq!(body[length..], numbers(&[2.0, f32::INFINITY]));
    }
    // Nothing but the tensor.
    let raw = [("inference-header-content-length", "0")];
    let (status, headers, body) = send(&site, "POST", INFER, &raw, &numbers(&[1.0, 2.0, 3.0, 4.0])).await;
    let length: usize = headers["inference-header-content-length"].to_str().unwrap().parse().unwrap();
    assert_eq!((status, &body[length..]), (200, &numbers(&[2.0, 4.0, 6.0, 8.0])[..]));
}

#[tokio::test]
async fn errors_are_as_clients_of_the_protocol_read_them() {
    let site = plain();
    let input = |name: &str, shape: &[i64], datatype: &str, data: Value| json!({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]});
    for (body, says) in [
        (input("z", &[1, 2], "FP32", json!([1, 2])), "`z` is none of the model's; the model takes `x`"),
        (input("x", &[1, 3], "FP32", json!([1, 2, 3])), "FP32 [1, 3] was sent"),
        (input("x", &[1, 2], "INT64", json!([1, 2])), "INT64 [1, 2] was sent"),
        (input("x", &[1, 2], "FP31", json!([1, 2])), "there is no type \"FP31\""),
        (input("x", &[1, 2], "FP32", json!([1])), "its shape has 2 elements, and `data` has 1"),
        (input("x", &[1, 2], "FP32", json!([1, 2, 3])), "there are more than the 2 that the shape has"),
        (input("x", &[1, 2], "FP32", json!([1, "2"])), "a string is no FP32"),
        (input("x", &[1, 2], "FP32", json!([1, 1e300])), "is no FP32"),
        (input("x", &[5, 2], "FP32", json!([1, 2, 3, 4, 5, 6, 7, 8, 9, 0])), "1 to 4 items at a time"),
        (json!({"inputs": []}), "input `x` is missing"),
        (json!({"inputs": 1}), "the JSON"),
        (json!({"inputs": [], "outputs": [{"name": "w"}]}), "input `x` is missing"),
        (json!({"inputs": [], "parameters": {"sequence_id": 3}}), "`sequence_id`"),
    ] {
        let (status, answer) = ask(&site, &body).await;
        // Each begins with a capital letter.
        let text = answer["error"].as_str().unwrap().replacen("Input", "input", 1);
        assert!(status == 400 && answer["code"] == "bad_request" && text.contains(says), "{status} {answer}");
    }
    for (method, path, status, code) in [
        ("POST", "/v2/models/nobody/infer", 404, "unknown_model"),
        ("GET", "/v2/models/nobody", 404, "unknown_model"),
        ("GET", "/v2/nowhere", 404, "not_found"),
        ("GET", INFER, 405, "bad_request"),
        ("POST", "/v2/repository/models/double/unload", 409, "conflict"),
    ] {
        let body = input("x", &[1, 2], "FP32", json!([1, 2])).to_string();
        let (found, _, body) = send(&site, method, path, &[], body.as_bytes()).await;
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((found, answer["code"].as_str().unwrap()), (status, code), "{path}: {answer}");
        assert!(answer["error"].is_string());
    }
}

#[tokio::test]
async fn too_much_is_refused_before_it_is_read() {
    let site = site(Settings { tensor_bytes: 64, ..Settings::default() }, None);
    let body = json!({"inputs": [{"name": "x", "shape": [9, 2], "datatype": "FP32", "data": [0]}]});
    let (status, answer) = ask(&site, &body).await;
    assert_eq!((status, answer["code"].as_str().unwrap()), (413, "too_large"), "{answer}");
    let (status, _, body) = send(&site, "POST", INFER, &[("content-length", "1000000000")], b"{").await;
    assert_eq!(status, 413, "{}", String::from_utf8_lossy(&body));
    let bomb = vec![b' '; 1 << 20];
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed.write_all(&bomb).unwrap();
    let (status, ..) = send(&site, "POST", INFER, &[("content-encoding", "gzip")], &packed.finish().unwrap()).await;
    assert_eq!(status, 413);
}

#[tokio::test]
async fn tokens_say_who_may_do_what() {
    let site = site(with_auth(), None);
    let body = json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}).to_string();
    let status = async |method, path, claims: Option<Value>| {
        let token = claims.map(|claims| format!("Bearer {}", bearer(&claims)));
        let headers: Vec<_> = token.as_deref().map(|token| ("authorization", token)).into_iter().collect();
        send(&site, method, path, &headers, body.as_bytes()).await.0
    };
    for open in ["/v2", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(status("GET", open, None).await, 200, "{open}");
    }
    let (load, index) = ("/v2/repository/models/double/load", "/v2/repository/index");
    assert_eq!(status("POST", INFER, None).await, 401);
    assert_eq!(status("POST", index, None).await, 401);
    assert_eq!(status("GET", "/v2/models/double", None).await, 401);
    assert_eq!(status("GET", "/v2/models/double", Some(json!({}))).await, 200);
    assert_eq!(status("POST", INFER, Some(json!({}))).await, 403);
    assert_eq!(status("POST", INFER, Some(json!({"can_publish": true}))).await, 200);
    assert_eq!(status("POST", INFER, Some(json!({"can_publish": true, "models": ["other"]}))).await, 403);
    assert_eq!(status("POST", load, Some(json!({"can_publish": true}))).await, 403);
    let token = format!("Bearer {}", bearer(&json!({"models": ["broken"]})));
    let (status, _, body) = send(&site, "POST", index, &[("authorization", &token)], b"").await;
    let answer: Value = serde_json::from_slice(&body).unwrap();
    let expected = json!([{"name": "broken", "version": "1", "state": "UNAVAILABLE", "reason": "no graph"}]);
    assert_eq!((status, answer), (200, expected));
}

/// A request whose body begins with these bytes and then stays away.
fn begun(bytes: usize) -> Request<Body> {
    let first = stream::iter([Ok::<_, Infallible>(Bytes::from(vec![b' '; bytes]))]);
    let body = Body::from_stream(first.chain(stream::pending()));
    Request::post(INFER).header("host", "localhost").body(body).unwrap()
}

#[tokio::test]
async fn requests_of_which_little_comes_keep_nobody_waiting() {
    let site = plain();
    let mut idle: Vec<_> = (0..64).map(|_| Box::pin(site.request(begun(1000)))).collect();
    for request in &mut idle {
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut *request).is_pending());
        }
    }
    let body = json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]});
    assert_eq!(ask(&site, &body).await.0, 200);
    let large = [
        json!({"inputs": [{"name": "x", "shape": [4, 2], "datatype": "FP32",
        "parameters": {"binary_data_size": 32}}]})
        .to_string()
        .into_bytes(),
        numbers(&[1.0; 8]),
    ]
    .concat();
    let head = (large.len() - 32).to_string();
    let (status, ..) = send(&site, "POST", INFER, &[("inference-header-content-length", &head)], &large).await;
    assert_eq!(status, 200);
}

#[tokio::test(start_paused = true)]
async fn bodies_that_fill_the_room_make_others_wait_and_then_go() {
    let site = site(Settings { tensor_bytes: 64 * 1024, ..Settings::default() }, None);
    let mut held: Vec<_> = (0..4).map(|_| Box::pin(site.request(begun(128 * 1024)))).collect();
    for request in &mut held {
        for _ in 0..10 {
            assert!(futures_util::poll!(&mut *request).is_pending());
        }
    }
    let body = json!({"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]});
    let (status, answer) = ask(&site, &body).await;
    assert_eq!((status, &answer["code"]), (503, &json!("capacity")), "{answer}");
    // Those that hold it have their time.
    for request in held {
        assert_eq!(request.await.status(), StatusCode::REQUEST_TIMEOUT);
    }
    assert_eq!(ask(&site, &body).await.0, 200);
}

#[tokio::test]
async fn json_beside_tensors_has_bounds() {
    let site = plain();
    let input = |more: Value| {
        let mut input = json!({"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        input
    };
    let ok = json!({"inputs": [input(json!({"parameters": {"anything": "goes"}}))]});
    assert_eq!(ask(&site, &ok).await.0, 200);
    for bad in [
        json!({"inputs": [input(json!({"name": "x".repeat(2000)}))]}),
        json!({"inputs": [input(json!({"shape": vec![1; 100]}))]}),
        json!({"inputs": [input(json!({"parameters": {"a": vec![0; 1000]}}))]}),
        json!({"inputs": vec![input(json!({})); 65]}),
        json!({"inputs": [input(json!({}))], "outputs": vec![json!({"name": "y"}); 65]}),
        json!({"inputs": [input(json!({}))], "parameters": {"a": {"b": {"c": 1}}}}),
        json!({"inputs": [input(json!({}))], "id": "i".repeat(2000)}),
    ] {
        let (status, answer) = ask(&site, &bad).await;
        assert_eq!((status, &answer["code"]), (400, &json!("bad_request")), "{answer}");
        assert!(answer["error"].as_str().unwrap().len() < 300, "{answer}");
    }
}
