use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::kserve::error::Error;
use crate::kserve::proto::{self as p, Parameter};
use crate::kserve::tensor::{DataType, Tensor, elements, push_string};
use crate::kserve::{Entry, MAX_TENSORS, Metadata, Outlet, Request, Response, Spent, Statistics, changes_meaning};

/// What a message asks for. Bytes of tensors are not copied where they come as such.
pub(in crate::kserve) fn read_request(message: p::ModelInferRequest, limit: usize) -> Result<Request, Error> {
    let p::ModelInferRequest { id, parameters, inputs, outputs, raw, .. } = message;
    if inputs.len() > MAX_TENSORS || outputs.len() > MAX_TENSORS {
        return Err(Error::malformed(format!("it names more than {MAX_TENSORS} inputs or outputs")));
    }
    refuse(&parameters, "the request")?;
    for output in &outputs {
        refuse(&output.parameters, &output.name)?;
    }
    let timeout = timeout(&parameters)?;
    let inputs = read_tensors(inputs, raw, limit)?;
    Ok(Request { id, inputs, outputs: outputs.into_iter().map(|output| output.name).collect(), timeout })
}

/// The other way around, for a client.
pub(in crate::kserve) fn write_request(model: &str, version: &str, request: Request) -> p::ModelInferRequest {
    let Request { id, inputs, outputs, timeout } = request;
    let mut parameters = p::Parameters::new();
    if let Some(micros) = timeout.and_then(|timeout| i64::try_from(timeout.as_micros()).ok()) {
        let value = Some(Parameter::Int64(micros.max(1)));
        parameters.insert("timeout".to_owned(), p::InferParameter { value });
    }
    let (inputs, raw) = write_tensors(inputs);
    let outputs = outputs.into_iter().map(|name| p::RequestedOutput { name, ..Default::default() }).collect();
    let (model_name, model_version) = (model.to_owned(), version.to_owned());
    p::ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw }
}

pub(in crate::kserve) fn write_response(response: Response) -> p::ModelInferResponse {
    let Response { model, version, id, outputs } = response;
    let (outputs, raw) = write_tensors(outputs);
    p::ModelInferResponse { model_name: model, model_version: version, id, outputs, raw }
}

/// The other way around, for a client.
pub(in crate::kserve) fn read_response(message: p::ModelInferResponse, limit: usize) -> Result<Response, Error> {
    let p::ModelInferResponse { model_name, model_version, id, outputs, raw } = message;
    let outputs = read_tensors(outputs, raw, limit)?;
    Ok(Response { model: model_name, version: model_version, id, outputs })
}

fn write_tensors(tensors: Vec<Tensor>) -> (Vec<p::InferTensor>, Vec<Bytes>) {
    let write = |Tensor { name, datatype, shape, data }| {
        let tensor = p::InferTensor { name, datatype: datatype.name().to_owned(), shape, ..Default::default() };
        (tensor, data)
    };
    tensors.into_iter().map(write).unzip()
}

fn read_tensors(tensors: Vec<p::InferTensor>, raw: Vec<Bytes>, limit: usize) -> Result<Vec<Tensor>, Error> {
    let count = tensors.len();
    if !raw.is_empty() && raw.len() != count {
        let found = raw.len();
        return Err(Error::malformed(format!("it has {count} tensors, and the raw contents of {found}")));
    }
    let mut left = limit;
    let mut raw = raw.into_iter();
    let mut read = |tensor: p::InferTensor| {
        let p::InferTensor { name, datatype, shape, parameters, contents } = tensor;
        let wrong = |problem: String| Error::BadTensor { name: name.clone(), problem };
        let datatype = DataType::named(&datatype).ok_or_else(|| wrong(format!("there is no type {datatype:?}")))?;
        refuse(&parameters, &name)?;
        let data = match (raw.next(), contents) {
            (Some(_), Some(_)) => return Err(wrong("it has contents, and raw contents, too".to_owned())),
            (Some(data), None) => data,
            (None, contents) => typed(datatype, contents.unwrap_or_default(), left).ok_or_else(|| {
                wrong(format!("its contents are not those of {datatype}, or more than are taken; send raw contents"))
            })?,
        };
        left = left.checked_sub(data.len()).ok_or(Error::TooLarge { what: "the request's tensors together", limit })?;
        // Checked before anything is made of it.
        elements(&name, &shape)?;
        Tensor::new(name, datatype, shape, data)
    };
    tensors.into_iter().map(&mut read).collect()
}

/// Contents as bytes; `None` where numbers do not fit, or are more than `limit` bytes.
fn typed(datatype: DataType, contents: p::Contents, limit: usize) -> Option<Bytes> {
    let p::Contents { bools, ints, int64s, uints, uint64s, floats, doubles, bytes } = contents;
    let most = [ints.len(), int64s.len(), uints.len(), uint64s.len(), floats.len(), doubles.len()];
    if most.into_iter().max()?.checked_mul(datatype.size().unwrap_or(1))? > limit {
        return None;
    }
    let mut out = BytesMut::new();
    macro_rules! put {
        ($values:expr, $type:ty) => {
            for value in $values {
                out.put_slice(&<$type>::try_from(value).ok()?.to_le_bytes());
            }
        };
    }
    match datatype {
        DataType::Bool => bools.into_iter().for_each(|value| out.put_u8(value.into())),
        DataType::Int8 => put!(ints, i8),
        DataType::Int16 => put!(ints, i16),
        DataType::Int32 => put!(ints, i32),
        DataType::Int64 => put!(int64s, i64),
        DataType::Uint8 => put!(uints, u8),
        DataType::Uint16 => put!(uints, u16),
        DataType::Uint32 => put!(uints, u32),
        DataType::Uint64 => put!(uint64s, u64),
        DataType::Fp32 => floats.into_iter().for_each(|value| out.put_f32_le(value)),
        DataType::Fp64 => doubles.into_iter().for_each(|value| out.put_f64_le(value)),
        DataType::Bytes => {
            let mut items = Vec::new();
            for item in bytes {
                if items.len().saturating_add(item.len()) > limit || !push_string(&mut items, &item) {
                    return None;
                }
            }
            return Some(Bytes::from(items));
        }
        // The protocol has no contents for these.
        DataType::Fp16 | DataType::Bf16 => return None,
    }
    Some(out.freeze())
}

fn refuse(parameters: &p::Parameters, of: &str) -> Result<(), Error> {
    match parameters.keys().find(|name| changes_meaning(name)) {
        None => Ok(()),
        Some(name) => Err(Error::Unsupported { what: format!("parameter `{name}` (of {of})") }),
    }
}

fn timeout(parameters: &p::Parameters) -> Result<Option<Duration>, Error> {
    let Some(parameter) = parameters.get("timeout") else { return Ok(None) };
    let micros = match parameter.value {
        Some(Parameter::Int64(micros)) => u64::try_from(micros).ok(),
        Some(Parameter::Uint64(micros)) => Some(micros),
        _ => None,
    };
    let micros = micros.ok_or_else(|| Error::malformed("parameter `timeout` is no number of microseconds"))?;
    Ok((micros > 0).then(|| Duration::from_micros(micros)))
}

pub(super) fn metadata(metadata: &Metadata) -> p::ModelMetadataResponse {
    let tensor = |outlet: &Outlet| p::TensorMetadata {
        name: outlet.name.clone(),
        datatype: outlet.datatype.name().to_owned(),
        shape: outlet.shape.clone(),
    };
    p::ModelMetadataResponse {
        name: metadata.name.clone(),
        versions: metadata.versions.clone(),
        platform: metadata.platform.clone(),
        inputs: metadata.inputs.iter().map(tensor).collect(),
        outputs: metadata.outputs.iter().map(tensor).collect(),
    }
}

/// The other way around, for a client: those of types that are known here.
pub(in crate::kserve) fn outlets(tensors: Vec<p::TensorMetadata>) -> Vec<Outlet> {
    let read = |tensor: p::TensorMetadata| {
        Some(Outlet { datatype: DataType::named(&tensor.datatype)?, name: tensor.name, shape: tensor.shape })
    };
    tensors.into_iter().filter_map(read).collect()
}

pub(super) fn config(metadata: &Metadata) -> p::ModelConfigResponse {
    let dims = |outlet: &Outlet| outlet.shape[usize::from(metadata.max_batch > 0)..].to_vec();
    let input = |outlet: &Outlet| p::ConfigInput {
        name: outlet.name.clone(),
        data_type: outlet.datatype.config_number(),
        dims: dims(outlet),
    };
    let output = |outlet: &Outlet| p::ConfigOutput {
        name: outlet.name.clone(),
        data_type: outlet.datatype.config_number(),
        dims: dims(outlet),
    };
    let config = p::ModelConfig {
        name: metadata.name.clone(),
        platform: metadata.platform.clone(),
        version_policy: Some(p::VersionPolicy { all: Some(p::Empty {}) }),
        max_batch_size: i32::try_from(metadata.max_batch).unwrap_or(i32::MAX),
        input: metadata.inputs.iter().map(input).collect(),
        output: metadata.outputs.iter().map(output).collect(),
        instance_group: vec![p::InstanceGroup {
            name: metadata.name.clone(),
            count: i32::try_from(metadata.instances).unwrap_or(i32::MAX),
            kind: p::InstanceKind::Cpu.into(),
        }],
        default_model_filename: "model.onnx".to_owned(),
        backend: "onnxruntime".to_owned(),
    };
    p::ModelConfigResponse { config: Some(config) }
}

pub(super) fn statistics(all: &[Statistics]) -> p::ModelStatisticsResponse {
    #[expect(clippy::unnecessary_wraps, reason = "a field of a message")]
    fn spent(spent: Spent) -> Option<p::Duration> {
        Some(p::Duration { count: spent.count, ns: spent.ns })
    }
    let one = |it: &Statistics| p::ModelStatistics {
        name: it.name.clone(),
        version: it.version.clone(),
        last_inference: it.last_inference_ms,
        inference_count: it.inferences,
        execution_count: it.executions,
        inference_stats: Some(p::InferStatistics {
            success: spent(it.success),
            fail: spent(it.fail),
            queue: spent(it.queue),
            compute_input: spent(it.compute_input),
            compute_infer: spent(it.compute_infer),
            compute_output: spent(it.compute_output),
        }),
        batch_stats: it
            .batches
            .iter()
            .map(|batch| p::BatchStatistics {
                batch_size: batch.size,
                compute_input: spent(batch.compute_input),
                compute_infer: spent(batch.compute_infer),
                compute_output: spent(batch.compute_output),
            })
            .collect(),
    };
    p::ModelStatisticsResponse { model_stats: all.iter().map(one).collect() }
}

pub(super) fn index(entries: Vec<Entry>) -> p::IndexResponse {
    let model = |Entry { name, version, ready, reason }| p::ModelIndex {
        name,
        version,
        state: if ready { "READY" } else { "UNAVAILABLE" }.to_owned(),
        reason,
    };
    p::IndexResponse { models: entries.into_iter().map(model).collect() }
}
