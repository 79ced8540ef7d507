//! Typed failures of the text library. The numbers are part of the C ABI (src/text/rust_text.h).

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 1,
    Malformed = 2,
    Unsupported = 3,
    Internal = 4,
    PayloadTooLarge = 5,
}

#[derive(Clone, Debug)]
pub struct TextError {
    pub code: Code,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, TextError>;

fn error(code: Code, message: impl Into<String>) -> TextError {
    TextError { code, message: message.into() }
}

pub fn invalid(message: impl Into<String>) -> TextError {
    error(Code::InvalidArgument, message)
}
pub fn malformed(message: impl Into<String>) -> TextError {
    error(Code::Malformed, message)
}
pub fn unsupported(message: impl Into<String>) -> TextError {
    error(Code::Unsupported, message)
}
pub fn internal(message: impl Into<String>) -> TextError {
    error(Code::Internal, message)
}
pub fn too_large(message: impl Into<String>) -> TextError {
    error(Code::PayloadTooLarge, message)
}
