//! Chat templates as `transformers` renders them: Jinja2 with trim_blocks, lstrip_blocks and loop controls, Python's
//! string methods, `raise_exception`, `strftime_now`, its `tojson` and its `generation` blocks.
//!
//! A template runs under fuel, which pays for instructions and for every byte they make, so that a bomb ends with an
//! error after a bounded time and never takes more than a bounded memory.

use std::borrow::Cow;

use minijinja::machinery::{eval, make_string_output, CompiledTemplate, Instruction, TemplateConfig};
use minijinja::value::{Rest, Tuple, ValueKind};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, State, Value};
use serde_json::Value as Json;

use crate::error::{invalid, unsupported, Result};
use crate::loading::{special_content, SPECIAL_NAMES};
use crate::pyjson;

/// Some ten thousand messages through a usual template, and spent within a tenth of a second.
const FUEL: u64 = 500_000;
/// More for long conversations: each byte of input may be copied some times.
const FUEL_PER_INPUT_BYTE: u64 = 4;
const MAX_METHOD_BYTES: usize = 64 << 20;

/// A model's special tokens by their names in tokenizer_config.json, as templates may ask for them.
pub type Specials = Vec<(String, Json)>;

pub fn specials_of(config: &Json) -> Specials {
    let mut specials = Vec::new();
    for name in SPECIAL_NAMES {
        if let Some(content) = special_content(&config[*name]) {
            specials.push(((*name).to_owned(), Json::String(content)));
        }
    }
    if let Some(list) = config["additional_special_tokens"].as_array() {
        let names = list.iter().filter_map(special_content).map(Json::String).collect();
        specials.push(("additional_special_tokens".to_owned(), Json::Array(names)));
    }
    specials
}

pub struct ChatTemplate {
    env: std::result::Result<Environment<'static>, String>,
    plain: String, // the sources as they are compiled
    tool_use: Option<String>,
    pub source: String,
}

/// The parsed request, ready to render.
pub struct ChatInput {
    pub messages: Json,
    pub tools: Option<Json>,
    pub kwargs: Json,
    pub add_generation_prompt: bool,
    pub continue_final_message: bool,
}

/// The default template and the one for tools, from chat_template.jinja or else the config.
fn find_sources(config: &Json, jinja: &str) -> (Option<String>, Option<String>) {
    if !jinja.is_empty() {
        return (Some(jinja.to_owned()), None);
    }
    match &config["chat_template"] {
        Json::String(source) => (Some(source.clone()), None),
        Json::Array(named) => {
            let find = |name: &str| {
                let entry = named.iter().find(|entry| entry["name"] == name)?;
                entry["template"].as_str().map(str::to_owned)
            };
            let first = || named.first().and_then(|entry| entry["template"].as_str()).map(str::to_owned);
            (find("default").or_else(first), find("tool_use"))
        }
        _ => (None, None),
    }
}

impl ChatTemplate {
    pub fn load(config: &Json, jinja: &str) -> Option<ChatTemplate> {
        let (default, tool_use) = find_sources(config, jinja);
        Some(ChatTemplate::new(default?, tool_use))
    }

    pub fn new(source: String, tool_use: Option<String>) -> ChatTemplate {
        let plain = without_generation_blocks(&source).into_owned();
        let tool_use = tool_use.map(|source| without_generation_blocks(&source).into_owned());
        let env = build_environment();
        let checked = env.and_then(|env| {
            for source in std::iter::once(&plain).chain(&tool_use) {
                compile(&env, source)?;
            }
            Ok(env)
        });
        let env = checked.map_err(|error| describe(&error));
        ChatTemplate { env, plain, tool_use, source }
    }

    /// Whether it compiles: the error has its place.
    pub fn check(&self) -> Result<()> {
        self.env.as_ref().map(|_| ()).map_err(|error| invalid(error.clone()))
    }

    pub fn render(&self, chat: &ChatInput, specials: &Specials) -> Result<String> {
        let env = self
            .env
            .as_ref()
            .map_err(|error| unsupported(format!("the model's chat template cannot be used: {error}")))?;
        let mut env = env.clone();
        env.set_fuel(Some(FUEL + FUEL_PER_INPUT_BYTE * chat.messages.to_string().len() as u64));
        let source = match &self.tool_use {
            Some(source) if chat.tools.is_some() => source,
            _ => &self.plain,
        };
        let mut variables = serde_json::Map::new();
        for (name, value) in specials {
            variables.insert(name.clone(), value.clone());
        }
        variables.insert("messages".to_owned(), chat.messages.clone());
        variables.insert("tools".to_owned(), chat.tools.clone().unwrap_or(Json::Null));
        variables.insert("documents".to_owned(), Json::Null);
        variables.insert("add_generation_prompt".to_owned(), Json::Bool(chat.add_generation_prompt));
        if let Some(kwargs) = chat.kwargs.as_object() {
            variables.extend(kwargs.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        let rendered = evaluate(&env, source, to_value(Json::Object(variables)))
            .map_err(|error| invalid(format!("chat template: {}", describe(&error))))?;
        if chat.continue_final_message {
            return cut_after_final_message(rendered, &chat.messages);
        }
        Ok(rendered)
    }
}

fn to_value(json: Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(yes) => Value::from(yes),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Value::from(int),
            (None, Some(int)) => Value::from(int),
            _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::from(text),
        Json::Array(items) => items.into_iter().map(to_value).collect::<Vec<Value>>().into(),
        Json::Object(map) => Value::from_pairs(map.into_iter().map(|(key, value)| (key, to_value(value)))),
    }
}

/// An error with its place, without the template's text.
fn describe(error: &Error) -> String {
    let what = match (error.kind(), error.detail()) {
        (ErrorKind::OutOfFuel, _) => "rendering takes too long".to_owned(),
        (_, Some(detail)) => detail.to_owned(),
        (kind, None) => kind.to_string(),
    };
    match error.line() {
        Some(line) => format!("{what} (line {line} of the template)"),
        None => what,
    }
}

/// What the compiled `+` calls; no template can name it.
const ADD: &str = "plus sign";

/// Compiles a template, with every `+` routed through `add`: minijinja joins lists lazily and free of charge, so that
/// doubling one forty times would cost nothing until something walks over it.
fn compile<'a>(env: &Environment, source: &'a str) -> std::result::Result<CompiledTemplate<'a>, Error> {
    let config = TemplateConfig {
        syntax_config: env.syntax().clone(),
        default_auto_escape: std::sync::Arc::new(|_| AutoEscape::None),
    };
    let mut compiled = CompiledTemplate::new("chat_template", source, &config)?;
    let mut at = 0;
    while let Some(instruction) = compiled.instructions.get_mut(at) {
        if matches!(instruction, Instruction::Add) {
            *instruction = Instruction::CallFunction(ADD, Some(2));
        }
        at += 1;
    }
    Ok(compiled)
}

fn evaluate(env: &Environment, source: &str, root: Value) -> std::result::Result<String, Error> {
    let compiled = compile(env, source)?;
    let mut text = String::new();
    let mut out = make_string_output(&mut text);
    eval(env, &compiled.instructions, root, &compiled.blocks, &mut out, AutoEscape::None)?;
    Ok(text)
}

/// Python's `+`.
fn add(state: &State, left: Value, right: Value) -> std::result::Result<Value, Error> {
    if let (Some(a), Some(b)) = (left.as_str(), right.as_str()) {
        state.consume_fuel((a.len() + b.len()) as u64 / 64)?;
        return Ok(Value::from([a, b].concat()));
    }
    let is_list = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::Iterable);
    if is_list(&left) && is_list(&right) {
        let mut items = Vec::new();
        for item in left.try_iter()?.chain(right.try_iter()?) {
            state.consume_fuel(1)?;
            items.push(item);
        }
        return Ok(if left.is_tuple() { Value::from(Tuple::from(items)) } else { Value::from(items) });
    }
    let is_integer = |value: &Value| value.is_integer() || value.kind() == ValueKind::Bool;
    let is_number = |value: &Value| value.is_number() || value.kind() == ValueKind::Bool;
    if is_integer(&left) && is_integer(&right) {
        if let (Ok(a), Ok(b)) = (i128::try_from(left.clone()), i128::try_from(right.clone())) {
            if let Some(sum) = a.checked_add(b) {
                return Ok(i64::try_from(sum).map_or_else(|_| Value::from(sum), Value::from));
            }
        }
    } else if is_number(&left) && is_number(&right) {
        return Ok(Value::from(f64::try_from(left)? + f64::try_from(right)?));
    }
    Err(Error::new(ErrorKind::InvalidOperation, format!("cannot add {} and {}", left.kind(), right.kind())))
}

fn build_environment() -> std::result::Result<Environment<'static>, Error> {
    let mut env = Environment::new();
    env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_recursion_limit(100);
    env.set_formatter(|out, state, value| {
        if value.is_number() && !value.is_integer() {
            return out.write_str(&pyjson::float(f64::try_from(value.clone())?)).map_err(Error::from);
        }
        minijinja::escape_formatter(out, state, value)
    });
    env.set_unknown_method_callback(python_method);
    env.add_filter("tojson", pyjson::tojson);
    env.add_filter("trim", trim);
    env.add_function("raise_exception", raise_exception);
    env.add_function("strftime_now", strftime_now);
    env.add_function(ADD, add);
    env.remove_filter("chain"); // joins lists for nothing, and Jinja2 has none
    Ok(env)
}

fn raise_exception(message: String) -> std::result::Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

fn trim(value: Cow<'_, str>, chars: Option<Cow<'_, str>>) -> String {
    match chars {
        Some(chars) => value.trim_matches(&chars.chars().collect::<Vec<_>>()[..]).to_owned(),
        None => value.trim_matches(pyjson::is_space).to_owned(),
    }
}

/// Python's methods, with what minijinja's own version leaves open: the white space of `strip`, and the size of what
/// `replace` and `join` are about to make.
fn python_method(
    state: &mut State,
    value: &Value,
    method: &str,
    args: &[Value],
) -> std::result::Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match (method, args) {
            ("strip", []) => return Ok(Value::from(text.trim_matches(pyjson::is_space))),
            ("lstrip", []) => return Ok(Value::from(text.trim_start_matches(pyjson::is_space))),
            ("rstrip", []) => return Ok(Value::from(text.trim_end_matches(pyjson::is_space))),
            ("replace", [old, new, ..]) => {
                let count = text.matches(old.as_str().unwrap_or_default()).count();
                limit_bytes(text.len().saturating_add(count.saturating_mul(new.as_str().map_or(0, str::len))))?;
            }
            ("join", [items]) => {
                let count = items.len().unwrap_or(0);
                limit_bytes(count.saturating_mul(text.len()))?;
            }
            ("removeprefix", [prefix]) => {
                let prefix = prefix.as_str().unwrap_or_default();
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            ("removesuffix", [suffix]) => {
                let suffix = suffix.as_str().unwrap_or_default();
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            _ => {}
        }
        state.consume_fuel(text.len() as u64 / 64)?;
    }
    if value.kind() == ValueKind::Iterable && method == "count" {
        return Err(Error::from(ErrorKind::UnknownMethod));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)
}

fn limit_bytes(bytes: usize) -> std::result::Result<(), Error> {
    if bytes > MAX_METHOD_BYTES {
        return Err(Error::new(ErrorKind::InvalidOperation, "the result would be too large"));
    }
    Ok(())
}

/// `datetime.now().strftime(format)`.
fn strftime_now(format: String, _rest: Rest<Value>) -> std::result::Result<String, Error> {
    let bad = || Error::new(ErrorKind::InvalidOperation, "strftime_now: bad format");
    if format.is_empty() {
        return Ok(format);
    }
    let format = std::ffi::CString::new(format).map_err(|_| bad())?;
    let mut buffer = [0u8; 512];
    // SAFETY: time and localtime_r fill plain structures; strftime writes at most the buffer's length.
    let written = unsafe {
        let now = libc::time(std::ptr::null_mut());
        let mut parts: libc::tm = std::mem::zeroed();
        if libc::localtime_r(&now, &mut parts).is_null() {
            return Err(bad());
        }
        libc::strftime(buffer.as_mut_ptr().cast(), buffer.len(), format.as_ptr(), &parts)
    };
    Ok(String::from_utf8_lossy(&buffer[..written]).into_owned())
}

/// `{% generation %}` only tells a trainer which part is the assistant's: the block becomes one that is always taken.
fn without_generation_blocks(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find("%}") else {
            break;
        };
        let tag = &rest[..end + 2];
        let inner = tag[2..tag.len() - 2].trim_matches(['-', '+']).trim();
        match inner {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => out.push_str(tag),
        }
        rest = &rest[end + 2..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// The text of the last message is left open for the model to go on.
fn cut_after_final_message(mut rendered: String, messages: &Json) -> Result<String> {
    let last = messages.as_array().and_then(|messages| messages.last());
    let content = last.map(|message| &message["content"]).unwrap_or(&Json::Null);
    let text = match content {
        Json::String(text) => Some(text.as_str()),
        Json::Array(blocks) => blocks.iter().rev().find_map(|block| block["text"].as_str()),
        _ => None,
    };
    let text = text.ok_or_else(|| invalid("continue_final_message: the last message has no text"))?;
    let core = text.trim_matches(pyjson::is_space);
    let at = rendered
        .rfind(core)
        .ok_or_else(|| invalid("continue_final_message: the chat template changes the last message's text"))?;
    let open = text.trim_start_matches(pyjson::is_space);
    let keep = if rendered[at..].starts_with(open) { open.len() } else { core.len() };
    rendered.truncate(at + keep);
    Ok(rendered)
}
