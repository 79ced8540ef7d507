//! The C ABI of Inferneo's text library; the header for C++ is src/text/rust_text.h, which must agree with this file.
//!
//! Rules of the border: lengths are explicit, strings need no terminator and are checked to be UTF-8 here; objects are
//! opaque and freed by their own function; results and error messages leave through a callback that copies them before
//! it returns, so that no memory changes owner; a panic becomes the code `Internal`.

mod added;
mod bpe;
mod decode;
mod error;
mod foresight;
mod grammar;
mod loading;
mod marks;
mod model;
mod parts;
mod pyjson;
mod source;
mod table;
mod template;
mod token_cache;
mod tokenizer;
mod walker;
mod words;

use std::collections::HashMap;
use std::ffi::c_void;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::{Arc, Mutex};

use added::Control;
use error::{internal, invalid, malformed, Result};
use template::{specials_of, ChatInput, ChatTemplate, Specials};
use tokenizer::Tokenizer;

/// Receives a result or, with a code other than 0, an error message; copies it.
type Sink = unsafe extern "C" fn(context: *mut c_void, data: *const u8, len: usize);

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Slice {
    data: *const u8,
    len: usize,
}

#[repr(C)]
pub struct Output {
    sink: Sink,
    context: *mut c_void,
}

pub struct TextHandle {
    tokenizer: Arc<Tokenizer>,
    template: Option<ChatTemplate>,
    specials: Specials,
    marker: marks::Marker,
    vocabularies: Mutex<HashMap<usize, Arc<grammar::Vocabulary>>>,
}

pub struct StreamHandle {
    stream: decode::Stream,
    skip_special_tokens: bool,
}

impl Slice {
    /// # Safety
    /// `data` points to `len` readable bytes, or `len` is 0.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.len == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data, self.len)
    }

    unsafe fn text<'a>(self, what: &str) -> Result<&'a str> {
        std::str::from_utf8(self.bytes())
            .map_err(|e| invalid(format!("{what} is not valid UTF-8 at byte {}", e.valid_up_to())))
    }

    unsafe fn tokens<'a>(self) -> &'a [u32] {
        if self.len == 0 {
            return &[];
        }
        std::slice::from_raw_parts(self.data.cast(), self.len)
    }
}

impl Output {
    fn send(&self, bytes: &[u8]) {
        // SAFETY: the caller's callback copies what it is given.
        unsafe { (self.sink)(self.context, bytes.as_ptr(), bytes.len()) }
    }

    fn send_tokens(&self, tokens: &[u32]) {
        // SAFETY: any u32 is four bytes.
        let bytes = unsafe { std::slice::from_raw_parts(tokens.as_ptr().cast::<u8>(), tokens.len() * 4) };
        self.send(bytes);
    }
}

/// Runs the body of an entry: an error or a panic becomes a code and a message.
fn guard(out: &Output, body: impl FnOnce() -> Result<()>) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
        Err(internal(format!("text library: {text}")))
    });
    match result {
        Ok(()) => 0,
        Err(error) => {
            out.send(error.message.as_bytes());
            error.code as i32
        }
    }
}

fn parse_json(text: &str, what: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).map_err(|e| malformed(format!("{what}: {e}")))
}

/// # Safety
/// Every slice is readable, `out` is valid; the handle in `*handle` belongs to the caller when 0 is returned.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_load(
    tokenizer_json: Slice,
    config_json: Slice,
    chat_template: Slice,
    handle: *mut *mut TextHandle,
    out: Output,
) -> i32 {
    quiet_panics();
    let load = || -> Result<TextHandle> {
        let config_text = config_json.text("tokenizer_config.json").map_err(|e| malformed(e.message))?;
        let config = match config_text {
            "" => serde_json::Value::Null,
            text => parse_json(text, "tokenizer_config.json")?,
        };
        let jinja = chat_template.text("chat_template.jinja").map_err(|e| malformed(e.message))?;
        let template = ChatTemplate::load(&config, jinja);
        let specials = specials_of(&config);
        let source = template.as_ref().map_or("", |template| template.source.as_str());
        let bytes = tokenizer_json.bytes();
        // A panic of the library over a file is the file's fault.
        let tokenizer = catch_unwind(AssertUnwindSafe(|| Tokenizer::load(bytes, config, source)))
            .unwrap_or_else(|_| Err(malformed("tokenizer.json: its parts do not fit together")))?;
        let marker = marks::Marker::new(&tokenizer);
        let tokenizer = Arc::new(tokenizer);
        Ok(TextHandle { tokenizer, template, specials, marker, vocabularies: Mutex::default() })
    };
    guard(&out, || {
        *handle = Box::into_raw(Box::new(load()?));
        Ok(())
    })
}

/// Panics are reported as errors; the default hook would print to stderr behind the logger's back.
fn quiet_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| std::panic::set_hook(Box::new(|_| {})));
}

/// # Safety
/// `handle` came from inferneo_text_load and is not used again.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_free(handle: *mut TextHandle) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(handle))));
}

/// # Safety
/// As for all entries: valid handles, readable slices, a valid callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_encode(
    handle: *const TextHandle,
    text: Slice,
    add_special_tokens: bool,
    control: bool,
    salt: Slice,
    out: Output,
) -> i32 {
    guard(&out, || {
        let control = if control { Control::All } else { Control::None };
        let tokens = (*handle).tokenizer.encode(text.text("the text")?, add_special_tokens, &control, salt.bytes())?;
        out.send_tokens(&tokens);
        Ok(())
    })
}

/// The bytes that remembered texts and their tokens may take; 0, as at first: none are.
/// # Safety
/// Valid handle.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_cache_limit(handle: *const TextHandle, bytes: usize) {
    let _ = catch_unwind(AssertUnwindSafe(|| (&*handle).tokenizer.cache.set_limit(bytes)));
}

/// # Safety
/// Valid handle.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_cache_counts(handle: *const TextHandle) -> token_cache::Counts {
    catch_unwind(AssertUnwindSafe(|| (&*handle).tokenizer.cache.counts())).unwrap_or_default()
}

/// # Safety
/// `tokens.len` counts tokens.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_decode(
    handle: *const TextHandle,
    tokens: Slice,
    skip_special_tokens: bool,
    out: Output,
) -> i32 {
    guard(&out, || {
        let text = (*handle).tokenizer.decode(tokens.tokens(), skip_special_tokens)?;
        out.send(text.as_bytes());
        Ok(())
    })
}

/// # Safety
/// Valid handle.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_vocab_size(handle: *const TextHandle) -> usize {
    (*handle).tokenizer.vocab_size()
}

/// The id of a token, or -1.
/// # Safety
/// Valid handle, readable slice.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_token_to_id(handle: *const TextHandle, token: Slice) -> i64 {
    let find = || std::str::from_utf8(token.bytes()).ok().and_then(|token| (*handle).tokenizer.token_to_id(token));
    catch_unwind(AssertUnwindSafe(find)).ok().flatten().map_or(-1, i64::from)
}

/// # Safety
/// Valid handle and callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_token_bytes(handle: *const TextHandle, token: u32, out: Output) -> i32 {
    guard(&out, || {
        out.send(&(*handle).tokenizer.token_bytes(token));
        Ok(())
    })
}

/// # Safety
/// Valid handle.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_is_special(handle: *const TextHandle, token: u32) -> bool {
    (*handle).tokenizer.is_special(token)
}

/// # Safety
/// Valid handle and callback. Returns 0 where there is a template.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_template_source(handle: *const TextHandle, out: Output) -> i32 {
    guard(&out, || {
        let template = (*handle).template.as_ref().ok_or_else(|| invalid("the model has no chat template"))?;
        out.send(template.source.as_bytes());
        Ok(())
    })
}

/// Whether a chat template compiles; the error has its place.
/// # Safety
/// Readable slice, valid callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_check_template(source: Slice, out: Output) -> i32 {
    quiet_panics();
    guard(&out, || ChatTemplate::new(source.text("the template")?.to_owned(), None).check())
}

#[repr(C)]
pub struct Chat {
    messages: Slice,
    tools: Slice,
    kwargs: Slice,
    template: Slice,
    system_prompt: Slice,
    salt: Slice,
    add_generation_prompt: bool,
    continue_final_message: bool,
}

/// Puts the text before a conversation that has no system message of its own.
fn add_system_prompt(messages: &mut serde_json::Value, text: &str) {
    let Some(list) = messages.as_array_mut() else {
        return;
    };
    if !text.is_empty() && !list.iter().any(|message| message["role"] == "system" || message["role"] == "developer") {
        list.insert(0, serde_json::json!({"role": "system", "content": text}));
    }
}

impl TextHandle {
    unsafe fn render(&self, chat: &Chat) -> Result<(String, Vec<usize>)> {
        let given = match chat.template.text("chat_template")? {
            "" => None,
            source => Some(ChatTemplate::new(source.to_owned(), None)),
        };
        let template = given.as_ref().or(self.template.as_ref()).ok_or_else(|| {
            error::unsupported("the model has no chat template: give one with --chat-template, or use completions")
        })?;
        let parse = |slice: Slice, what: &str| -> Result<serde_json::Value> {
            match slice.text(what)? {
                "" => Ok(serde_json::Value::Null),
                text => parse_json(text, what).map_err(|e| invalid(e.message)),
            }
        };
        let mut messages = parse(chat.messages, "messages")?;
        if !messages.is_array() {
            return Err(invalid("messages must be an array"));
        }
        add_system_prompt(&mut messages, chat.system_prompt.text("system_prompt")?);
        let tools = parse(chat.tools, "tools")?;
        let mut input = ChatInput {
            messages,
            tools: (!tools.is_null()).then_some(tools),
            kwargs: parse(chat.kwargs, "template_kwargs")?,
            add_generation_prompt: chat.add_generation_prompt,
            continue_final_message: chat.continue_final_message,
        };
        if chat.continue_final_message && chat.add_generation_prompt {
            return Err(invalid("add_generation_prompt and continue_final_message exclude each other"));
        }
        let mark = self.marker.mark(&self.tokenizer, &mut input, &template.source)?;
        let rendered = template.render(&input, &self.specials)?;
        Ok(match mark {
            Some(mark) => marks::take_marks(&rendered, mark),
            None => (rendered, Vec::new()),
        })
    }
}

/// # Safety
/// Valid handle, chat and callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_render_chat(handle: *const TextHandle, chat: *const Chat, out: Output) -> i32 {
    guard(&out, || {
        let (text, _) = (*handle).render(&*chat)?;
        out.send(text.as_bytes());
        Ok(())
    })
}

/// # Safety
/// Valid handle, chat and callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_apply_chat(handle: *const TextHandle, chat: *const Chat, out: Output) -> i32 {
    guard(&out, || {
        let (text, marks) = (*handle).render(&*chat)?;
        let tokens = (*handle).tokenizer.encode(&text, false, &Control::AllBut(&marks), (*chat).salt.bytes())?;
        out.send_tokens(&tokens);
        Ok(())
    })
}

/// # Safety
/// Valid handle, which must outlive the stream's use (the stream itself borrows nothing).
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_stream_new(
    handle: *const TextHandle,
    skip_special_tokens: bool,
) -> *mut StreamHandle {
    let make = || Box::new(StreamHandle { stream: (*handle).tokenizer.new_stream(), skip_special_tokens });
    catch_unwind(AssertUnwindSafe(make)).map_or(std::ptr::null_mut(), Box::into_raw)
}

/// # Safety
/// A stream and the handle it was made from.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_stream_push(
    stream: *mut StreamHandle,
    handle: *const TextHandle,
    token: u32,
    out: Output,
) -> i32 {
    guard(&out, || {
        let stream = &mut *stream;
        let mut text = String::new();
        (*handle).tokenizer.push(&mut stream.stream, token, stream.skip_special_tokens, &mut text)?;
        out.send(text.as_bytes());
        Ok(())
    })
}

/// # Safety
/// A stream that gets no more tokens.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_stream_finish(stream: *mut StreamHandle, out: Output) -> i32 {
    guard(&out, || {
        let mut text = String::new();
        (*stream).stream.finish(&mut text);
        out.send(text.as_bytes());
        Ok(())
    })
}

/// # Safety
/// A stream that is not used again.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_stream_free(stream: *mut StreamHandle) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(stream))));
}

/// `kind` as GrammarSpec::Kind of C++: 1 json_object, 2 json_schema, 3 regex, 4 choice, 5 lark.
/// # Safety
/// `choices` points to `num_choices` slices; `eos.len` counts tokens.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_compile_grammar(
    handle: *const TextHandle,
    kind: i32,
    text: Slice,
    choices: *const Slice,
    num_choices: usize,
    logits_width: usize,
    eos: Slice,
    compiled: *mut *mut grammar::Compiled,
    out: Output,
) -> i32 {
    guard(&out, || {
        let source = match kind {
            1 => grammar::Source::JsonObject,
            2 => grammar::Source::JsonSchema(text.text("the schema")?),
            3 => grammar::Source::Regex(text.text("the regular expression")?),
            4 => {
                let slices = if num_choices == 0 { &[] } else { std::slice::from_raw_parts(choices, num_choices) };
                let texts = slices.iter().map(|slice| slice.text("a choice")).collect::<Result<Vec<_>>>()?;
                grammar::Source::Choice(texts)
            }
            5 => grammar::Source::Lark(text.text("the grammar")?),
            _ => return Err(invalid("there is no grammar to compile")),
        };
        let vocabulary = {
            let mut cache =
                (*handle).vocabularies.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            match cache.get(&logits_width) {
                Some(vocabulary) => vocabulary.clone(),
                None => {
                    let made = Arc::new(grammar::Vocabulary::new((*handle).tokenizer.clone(), logits_width)?);
                    cache.insert(logits_width, made.clone());
                    made
                }
            }
        };
        let made = grammar::Compiled::compile(vocabulary, &source, eos.tokens())?;
        *compiled = Box::into_raw(Box::new(made));
        Ok(())
    })
}

/// # Safety
/// A compiled grammar that is not used again.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_grammar_free(compiled: *mut grammar::Compiled) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(compiled))));
}

/// # Safety
/// Valid grammar and callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_matcher_new(
    compiled: *const grammar::Compiled,
    matcher: *mut *mut grammar::GrammarMatcher,
    out: Output,
) -> i32 {
    guard(&out, || {
        *matcher = Box::into_raw(Box::new((*compiled).new_matcher()));
        Ok(())
    })
}

/// # Safety
/// A matcher that is not used again.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_matcher_free(matcher: *mut grammar::GrammarMatcher) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(matcher))));
}

/// # Safety
/// `mask` points to `words` writable words.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_matcher_fill_mask(
    matcher: *mut grammar::GrammarMatcher,
    mask: *mut u32,
    words: usize,
    out: Output,
) -> i32 {
    guard(&out, || {
        let mask = if words == 0 { &mut [] } else { std::slice::from_raw_parts_mut(mask, words) };
        (*matcher).fill_mask(mask)
    })
}

/// # Safety
/// Valid matcher and callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_matcher_accept(
    matcher: *mut grammar::GrammarMatcher,
    token: u32,
    out: Output,
) -> i32 {
    guard(&out, || (*matcher).accept(token))
}

/// # Safety
/// Valid matcher and callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_matcher_rollback(
    matcher: *mut grammar::GrammarMatcher,
    count: usize,
    out: Output,
) -> i32 {
    guard(&out, || (*matcher).rollback(count))
}

/// Tokens that probably follow, each in the low 28 bits of its number; above them how sure it is, as foresight::Certainty.
/// # Safety
/// Valid matcher and callback.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_matcher_foresee(
    matcher: *mut grammar::GrammarMatcher,
    max_tokens: usize,
    out: Output,
) -> i32 {
    guard(&out, || {
        let foresight = (*matcher).foresee(max_tokens)?;
        let numbers: Vec<u32> = foresight.iter().map(|(token, certainty)| token | (*certainty as u32) << 28).collect();
        out.send_tokens(&numbers);
        Ok(())
    })
}

/// # Safety
/// Valid matcher.
#[no_mangle]
pub unsafe extern "C" fn inferneo_text_matcher_is_finished(matcher: *const grammar::GrammarMatcher) -> bool {
    catch_unwind(AssertUnwindSafe(|| (*matcher).is_finished())).unwrap_or(true)
}
