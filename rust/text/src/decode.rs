//! Streaming decode. Each step of a tokenizer's decoder is a small state machine that takes one token at a time, and
//! the batch decode is the same machine run over all tokens, so that the two cannot differ.
//!
//! One deliberate difference from `tokenizers`: in a run of byte tokens (`<0xE2>`) that is not valid UTF-8 as a whole,
//! the valid characters are kept and each broken part becomes one U+FFFD, where the library replaces every byte of the
//! run. The library's rule would hold back a run of any length, and lose characters that were complete.

use serde_json::Value;

use crate::error::{malformed, unsupported, Result};

#[derive(Clone, Debug)]
pub enum Step {
    ByteLevel,
    Replace { from: String, to: String },
    ByteFallback,
    Fuse,
    Strip { content: char, start: usize, stop: usize },
    WordPiece { prefix: String, cleanup: bool },
    Metaspace { replacement: char, drop_first: bool },
    Suffix { suffix: String },
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    join_with_space: bool, // no decoder at all: tokens are joined by spaces
}

fn text_field(decoder: &Value, name: &str) -> Result<String> {
    decoder[name]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| malformed(format!("tokenizer.json: decoder.{name} must be a string")))
}

fn char_field(decoder: &Value, name: &str) -> Result<char> {
    let text = text_field(decoder, name)?;
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(c), None) => Ok(c),
        _ => Err(malformed(format!("tokenizer.json: decoder.{name} must be one character"))),
    }
}

fn add_steps(decoder: &Value, steps: &mut Vec<Step>) -> Result<()> {
    let count = |name: &str| decoder[name].as_u64().unwrap_or(0).min(1 << 16) as usize;
    let kind = decoder["type"].as_str().unwrap_or("");
    match kind {
        "Sequence" => {
            for inner in decoder["decoders"].as_array().map(Vec::as_slice).unwrap_or(&[]) {
                add_steps(inner, steps)?;
            }
        }
        "ByteLevel" => steps.push(Step::ByteLevel),
        "ByteFallback" => steps.push(Step::ByteFallback),
        "Fuse" => steps.push(Step::Fuse),
        "Replace" => {
            let from = decoder["pattern"]["String"]
                .as_str()
                .ok_or_else(|| unsupported("tokenizer.json: a Replace decoder with a regular expression"))?;
            let fused = steps.iter().any(|step| matches!(step, Step::Fuse | Step::ByteLevel));
            if fused && from.chars().count() != 1 {
                return Err(unsupported("tokenizer.json: a Replace decoder of a string after Fuse"));
            }
            steps.push(Step::Replace { from: from.to_owned(), to: text_field(decoder, "content")? });
        }
        "Strip" => steps.push(Step::Strip {
            content: char_field(decoder, "content")?,
            start: count("start"),
            stop: count("stop"),
        }),
        "WordPiece" => steps.push(Step::WordPiece {
            prefix: text_field(decoder, "prefix")?,
            cleanup: decoder["cleanup"].as_bool().unwrap_or(true),
        }),
        "Metaspace" => steps.push(Step::Metaspace {
            replacement: char_field(decoder, "replacement")?,
            drop_first: decoder["prepend_scheme"].as_str() != Some("never")
                && decoder["add_prefix_space"].as_bool() != Some(false),
        }),
        "BPEDecoder" => steps.push(Step::Suffix { suffix: text_field(decoder, "suffix")? }),
        other => return Err(unsupported(format!("tokenizer.json: decoder `{other}`"))),
    }
    Ok(())
}

impl Plan {
    pub fn from_json(decoder: &Value) -> Result<Plan> {
        let mut steps = Vec::new();
        if decoder.is_null() {
            return Ok(Plan { steps, join_with_space: true });
        }
        add_steps(decoder, &mut steps)?;
        Ok(Plan { steps, join_with_space: false })
    }

    pub fn start(&self) -> Stream {
        let mut fused = false;
        let mut states = Vec::new();
        for step in &self.steps {
            let state = State { step: step.clone(), fused, first: true, bytes: Vec::new(), text: String::new(), cut: 0 };
            fused |= matches!(step, Step::Fuse | Step::ByteLevel);
            states.push(state);
        }
        Stream { states, join_with_space: self.join_with_space, first: true }
    }

    /// The bytes that a token stands for in the middle of a text.
    pub fn token_bytes(&self, token: &str) -> Vec<u8> {
        let mut text = token.to_owned();
        for step in &self.steps {
            match step {
                Step::ByteLevel => return byte_level(&text),
                Step::Replace { from, to } => text = text.replace(from.as_str(), to),
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return vec![byte];
                    }
                }
                Step::Fuse | Step::Strip { .. } => {}
                Step::WordPiece { prefix, .. } => {
                    text = text.strip_prefix(prefix.as_str()).map_or_else(|| format!(" {text}"), str::to_owned);
                }
                Step::Metaspace { replacement, .. } => text = text.replace(*replacement, " "),
                Step::Suffix { suffix } => text = text.replace(suffix.as_str(), " "),
            }
        }
        text.into_bytes()
    }
}

/// GPT-2's printable alphabet for bytes: the byte of a character, if it is one of the 256.
fn byte_of(c: char) -> Option<u8> {
    let code = c as u32;
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7f) as u8),
        0x143 => Some(0xad),
        _ => None,
    }
}

pub fn byte_level(token: &str) -> Vec<u8> {
    token.chars().map(byte_of).collect::<Option<Vec<u8>>>().unwrap_or_else(|| token.as_bytes().to_vec())
}

pub fn fallback_byte(token: &str) -> Option<u8> {
    let hex = token.strip_prefix("<0x")?.strip_suffix('>')?;
    if hex.len() != 2 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(hex, 16).ok()
}

/// The WordPiece decoder's tidying of English contractions, token by token.
fn clean_up(text: &str) -> String {
    const RULES: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    RULES.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Moves what is complete in `bytes` into `out`; broken parts become U+FFFD, an unfinished character stays.
fn drain_utf8(bytes: &mut Vec<u8>, out: &mut String) {
    let mut done = 0;
    loop {
        match std::str::from_utf8(&bytes[done..]) {
            Ok(text) => {
                out.push_str(text);
                done = bytes.len();
                break;
            }
            Err(error) => {
                let valid = done + error.valid_up_to();
                out.push_str(std::str::from_utf8(&bytes[done..valid]).unwrap_or_default());
                done = valid;
                match error.error_len() {
                    Some(len) => {
                        out.push('\u{fffd}');
                        done += len;
                    }
                    None => break,
                }
            }
        }
    }
    bytes.drain(..done);
}

struct State {
    step: Step,
    fused: bool,   // every input is a part of one single token
    first: bool,
    bytes: Vec<u8>, // an unfinished character
    text: String,   // held back: the suffix step's last token, the strip step's trailing characters
    cut: usize,     // characters stripped from the start of the fused text
}

impl State {
    fn push(&mut self, token: String) -> Option<String> {
        let first = std::mem::replace(&mut self.first, false);
        match &self.step {
            Step::Fuse => Some(token),
            Step::Replace { from, to } => Some(token.replace(from.as_str(), to)),
            Step::ByteLevel => {
                self.bytes.extend(byte_level(&token));
                let mut out = String::new();
                drain_utf8(&mut self.bytes, &mut out);
                (!out.is_empty()).then_some(out)
            }
            Step::ByteFallback => {
                let mut out = String::new();
                if let Some(byte) = fallback_byte(&token) {
                    self.bytes.push(byte);
                    drain_utf8(&mut self.bytes, &mut out);
                    return (!out.is_empty()).then_some(out);
                }
                self.flush_bytes(&mut out);
                out.push_str(&token);
                Some(out)
            }
            Step::Strip { content, start, stop } if self.fused => {
                let mut text = std::mem::take(&mut self.text);
                text.push_str(&token);
                while self.cut < *start && text.starts_with(*content) {
                    text.drain(..content.len_utf8());
                    self.cut += 1;
                }
                if !text.is_empty() {
                    self.cut = *start; // the beginning is over
                }
                let tail = text.chars().rev().take(*stop).take_while(|c| c == content).count();
                self.text = text.split_off(text.len() - tail * content.len_utf8());
                Some(text)
            }
            Step::Strip { content, start, stop } => {
                let chars: Vec<char> = token.chars().collect();
                let begin = chars.iter().take(*start).take_while(|c| *c == content).count();
                let end = chars.iter().rev().take(*stop).take_while(|c| *c == content).count();
                Some(chars[begin..(chars.len() - end).max(begin)].iter().collect())
            }
            Step::WordPiece { prefix, cleanup } => {
                let text = match token.strip_prefix(prefix.as_str()) {
                    _ if first => token,
                    Some(rest) => rest.to_owned(),
                    None => format!(" {token}"),
                };
                Some(if *cleanup { clean_up(&text) } else { text })
            }
            Step::Metaspace { replacement, drop_first } => Some(if first && *drop_first {
                token.replace(*replacement, "")
            } else {
                token.replace(*replacement, " ")
            }),
            Step::Suffix { suffix } => {
                let before = std::mem::replace(&mut self.text, token);
                (!first).then(|| before.replace(suffix.as_str(), " "))
            }
        }
    }

    fn flush_bytes(&mut self, out: &mut String) {
        if !self.bytes.is_empty() {
            out.push_str(&String::from_utf8_lossy(&std::mem::take(&mut self.bytes)));
        }
    }

    fn finish(&mut self) -> Option<String> {
        let mut out = String::new();
        match &self.step {
            Step::ByteLevel | Step::ByteFallback => self.flush_bytes(&mut out),
            Step::Suffix { suffix } => out = std::mem::take(&mut self.text).replace(suffix.as_str(), ""),
            _ => {} // a strip's held tail is what it strips
        }
        (!out.is_empty()).then_some(out)
    }
}

pub struct Stream {
    states: Vec<State>,
    join_with_space: bool,
    first: bool,
}

impl Stream {
    pub fn push(&mut self, token: &str, out: &mut String) {
        let first = std::mem::replace(&mut self.first, false);
        if self.join_with_space {
            if !first {
                out.push(' ');
            }
            out.push_str(token);
            return;
        }
        self.run(0, token.to_owned(), out);
    }

    fn run(&mut self, from: usize, token: String, out: &mut String) {
        let mut token = token;
        for state in &mut self.states[from..] {
            match state.push(token) {
                Some(next) => token = next,
                None => return,
            }
        }
        out.push_str(&token);
    }

    pub fn finish(&mut self, out: &mut String) {
        for at in 0..self.states.len() {
            if let Some(token) = self.states[at].finish() {
                self.run(at + 1, token, out);
            }
        }
    }
}
