#![expect(unsafe_code, reason = "looks functions up by the types of their headers")]

use std::ffi::{c_int, c_uint, c_ulonglong};

use moq_nvenc::sys::cuviddec::{
    CUVIDDECODECAPS, CUVIDDECODECREATEINFO, CUVIDGETDECODESTATUS, CUVIDPICPARAMS, CUVIDPROCPARAMS,
    CUVIDRECONFIGUREDECODERINFO, CUvideodecoder,
};
use moq_nvenc::sys::nvcuvid::{CUVIDPARSERPARAMS, CUVIDSOURCEDATAPACKET, CUvideoparser};

use crate::device::driver::function_table;

function_table! {
    /// The functions of NVIDIA's decoder (NVDECODE API) that are used. All but those of the parser need a current context.
    Api, "libnvcuvid.so.1":
    capabilities = "cuvidGetDecoderCaps"(*mut CUVIDDECODECAPS);
    create_decoder = "cuvidCreateDecoder"(*mut CUvideodecoder, *mut CUVIDDECODECREATEINFO);
    destroy_decoder = "cuvidDestroyDecoder"(CUvideodecoder);
    reconfigure_decoder = "cuvidReconfigureDecoder"(CUvideodecoder, *mut CUVIDRECONFIGUREDECODERINFO);
    decode_picture = "cuvidDecodePicture"(CUvideodecoder, *mut CUVIDPICPARAMS);
    decode_status = "cuvidGetDecodeStatus"(CUvideodecoder, c_int, *mut CUVIDGETDECODESTATUS);
    map_frame = "cuvidMapVideoFrame64"(
        CUvideodecoder, c_int, *mut c_ulonglong, *mut c_uint, *mut CUVIDPROCPARAMS
    );
    unmap_frame = "cuvidUnmapVideoFrame64"(CUvideodecoder, c_ulonglong);
    create_parser = "cuvidCreateVideoParser"(*mut CUvideoparser, *mut CUVIDPARSERPARAMS);
    parse = "cuvidParseVideoData"(CUvideoparser, *mut CUVIDSOURCEDATAPACKET);
    destroy_parser = "cuvidDestroyVideoParser"(CUvideoparser);
}
