//! Grammars: llguidance over the model's own token table, padded to the width of a logits row.
//!
//! End of sequence is not llguidance's business: its table ends with one virtual token of ours that it treats as the
//! end, and the model's own end tokens are set in a mask exactly where that one is.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use llguidance::api::{ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};
use llguidance::{regex_to_lark, ParserFactory};

use crate::error::{internal, invalid, Result};
use crate::foresight::{foresee, Foresight};
use crate::tokenizer::Tokenizer;
use crate::walker::Walker;

const MAX_GRAMMAR_BYTES: usize = 256 << 10;
/// Of all regular expressions of a grammar together: what they cost grows with the square of this, in time and memory.
const MAX_REGEX_BYTES: usize = 8 << 10;
const MAX_CHOICES: usize = 4096;
const MAX_SCHEMA_DEPTH: usize = 64;
/// A grammar whose first mask takes longer than this would stall the engine at every step.
const COMPILE_TIME: Duration = Duration::from_millis(400);

pub enum Source<'a> {
    JsonObject,
    JsonSchema(&'a str),
    Regex(&'a str),
    Choice(Vec<&'a str>),
    Lark(&'a str),
}

/// What grammars of one logits width share: the trie of all tokens.
pub struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    factory: ParserFactory,
    width: usize,
}

impl Vocabulary {
    pub fn new(tokenizer: Arc<Tokenizer>, width: usize) -> Result<Vocabulary> {
        if width < tokenizer.vocab_size() {
            return Err(invalid(format!(
                "a logits row of {width} is narrower than the vocabulary of {}",
                tokenizer.vocab_size()
            )));
        }
        let mut words: Vec<Vec<u8>> = Vec::with_capacity(width + 1);
        for id in 0..width as u32 {
            let mut bytes = tokenizer.token_bytes(id);
            if tokenizer.is_control(id) && !bytes.is_empty() {
                bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
            words.push(bytes);
        }
        words.push(b"\xff<|end of grammar|>".to_vec());
        let info = TokRxInfo::new(words.len() as u32, width as u32);
        let trie = TokTrie::from(&info, &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&env).map_err(|e| internal(format!("grammar: {e}")))?;
        factory.quiet();
        *factory.limits_mut() = ParserLimits {
            initial_lexer_fuel: 500_000,
            max_lexer_states: 50_000,
            max_grammar_size: 100_000,
            verbose_errors: false,
            ..ParserLimits::default()
        };
        Ok(Vocabulary { tokenizer, factory, width })
    }

    fn create(&self, grammar: TopLevelGrammar) -> Result<Walker> {
        let refused = |e: String| invalid(format!("grammar: {}", shortened(&e)));
        Ok(Walker::new(self.factory.create_parser(grammar).map_err(|e| refused(e.to_string()))?))
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("").trim()
}

/// The first line, and the cause that a regular expression's error tells in a later one.
fn shortened(text: &str) -> String {
    let first = first_line(text);
    match text.lines().skip(1).filter_map(|line| line.trim().strip_prefix("error: ")).last() {
        Some(cause) => format!("{first} {cause}"),
        None => first.to_owned(),
    }
}

/// A grammar that is ready to be matched; every matcher is a deep copy of this one.
pub struct Compiled {
    vocabulary: Arc<Vocabulary>,
    prototype: Mutex<Walker>,
    eos: Vec<u32>,
}

impl Compiled {
    pub fn compile(vocabulary: Arc<Vocabulary>, source: &Source, eos: &[u32]) -> Result<Compiled> {
        let started = Instant::now();
        let walker = vocabulary.create(build(source)?)?;
        // The first mask runs the lexer over the whole vocabulary: what is too complex shows here, not in the engine.
        let mut probe = walker.deep_clone();
        if let Err(error) = probe.compute_mask() {
            return Err(invalid(match first_line(&error) {
                "NoExtensionBias" => "grammar: no token of the model's vocabulary can begin it".to_owned(),
                line => format!("grammar: {line}"),
            }));
        }
        if started.elapsed() > COMPILE_TIME {
            return Err(invalid("grammar: it is too complex"));
        }
        let eos = eos.iter().copied().filter(|id| (*id as usize) < vocabulary.width).collect();
        Ok(Compiled { vocabulary, prototype: Mutex::new(walker), eos })
    }

    pub fn new_matcher(&self) -> GrammarMatcher {
        let prototype = self.prototype.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        GrammarMatcher {
            vocabulary: self.vocabulary.clone(),
            walker: prototype.deep_clone(),
            eos: self.eos.clone(),
            accepted: Vec::new(),
            ended: false,
        }
    }
}

fn build(source: &Source) -> Result<TopLevelGrammar> {
    let limit = |text: &str| {
        if text.len() > MAX_GRAMMAR_BYTES {
            return Err(invalid(format!("grammar: it has more than {MAX_GRAMMAR_BYTES} bytes")));
        }
        Ok(())
    };
    match source {
        Source::JsonObject => Ok(json_grammar(serde_json::json!({"type": "object"}))),
        Source::JsonSchema(text) => {
            limit(text)?;
            let schema: serde_json::Value =
                serde_json::from_str(text).map_err(|e| invalid(format!("grammar: the schema is not JSON: {e}")))?;
            let mut regex_bytes = 0;
            check_schema(&schema, 0, &mut regex_bytes)?;
            limit_regex(regex_bytes)?;
            Ok(json_grammar(schema))
        }
        Source::Regex(text) => {
            limit_regex(text.len())?;
            Ok(TopLevelGrammar::from_lark(format!("start: /{}/", regex_to_lark(text, ""))))
        }
        Source::Choice(choices) => {
            if choices.is_empty() || choices.len() > MAX_CHOICES {
                return Err(invalid(format!("grammar: there must be 1 to {MAX_CHOICES} choices")));
            }
            let mut rules = Vec::new();
            for choice in choices {
                limit(choice)?;
                rules.push(serde_json::to_string(choice).unwrap_or_default());
            }
            let text = format!("start: {}", rules.join(" | "));
            limit(&text)?;
            Ok(TopLevelGrammar::from_lark(text))
        }
        Source::Lark(text) => {
            limit(text)?;
            // Between the first and the last slash of a line: never less than its regular expressions.
            let of_line = |line: &str| line.rfind('/').map_or(0, |last| last - line.find('/').unwrap_or(last));
            limit_regex(text.lines().map(of_line).sum())?;
            Ok(TopLevelGrammar::from_lark((*text).to_owned()))
        }
    }
}

/// Between the parts of JSON: a space, or a new line with its indentation. Without a bound small models go on writing
/// white space until they are out of tokens.
const WHITESPACE: &str = r"\x20|\x0A[\x20\x09]{0,32}";

fn json_grammar(mut schema: serde_json::Value) -> TopLevelGrammar {
    if schema == serde_json::Value::Bool(true) {
        schema = serde_json::json!({});
    }
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("x-guidance".to_owned(), serde_json::json!({"whitespace_pattern": WHITESPACE}));
    }
    TopLevelGrammar::from_json_schema(schema)
}

fn limit_regex(bytes: usize) -> Result<()> {
    if bytes > MAX_REGEX_BYTES {
        return Err(invalid(format!("grammar: its regular expressions have more than {MAX_REGEX_BYTES} bytes")));
    }
    Ok(())
}

/// Refuses deep nesting and adds up the patterns.
fn check_schema(value: &serde_json::Value, depth: usize, regex_bytes: &mut usize) -> Result<()> {
    use serde_json::Value;
    if depth > MAX_SCHEMA_DEPTH {
        return Err(invalid("grammar: the schema is nested too deeply"));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_schema(item, depth + 1, regex_bytes)),
        Value::Object(map) => map.iter().try_for_each(|(key, item)| {
            *regex_bytes += match (key.as_str(), item) {
                ("pattern", Value::String(pattern)) => pattern.len(),
                ("patternProperties", Value::Object(patterns)) => patterns.keys().map(String::len).sum(),
                _ => 0,
            };
            check_schema(item, depth + 1, regex_bytes)
        }),
        _ => Ok(()),
    }
}

pub struct GrammarMatcher {
    vocabulary: Arc<Vocabulary>,
    walker: Walker,
    eos: Vec<u32>,
    accepted: Vec<u32>, // with an end of sequence, if it has one
    ended: bool,
}

impl GrammarMatcher {
    /// The walk goes as far as the grammar's own limits allow: what ends it is the grammar.
    fn failed(error: impl std::fmt::Display) -> crate::error::TextError {
        invalid(format!("grammar: {}", shortened(&error.to_string())))
    }

    fn may_end(&mut self) -> Result<bool> {
        if self.walker.is_stopped() {
            return match self.walker.error() {
                Some(error) => Err(Self::failed(error)),
                None => Ok(true),
            };
        }
        self.walker.is_accepting().map_err(Self::failed)
    }

    pub fn fill_mask(&mut self, mask: &mut [u32]) -> Result<()> {
        let width = self.vocabulary.width;
        if mask.len() != width.div_ceil(32) {
            return Err(invalid(format!("a mask of {} words for {width} tokens", mask.len())));
        }
        mask.fill(0);
        let may_end = self.may_end()?;
        if !self.ended && !self.walker.is_stopped() {
            let allowed = self.walker.compute_mask().map_err(Self::failed)?;
            let words = allowed.as_slice();
            let count = words.len().min(mask.len());
            mask[..count].copy_from_slice(&words[..count]);
            if width % 32 != 0 {
                mask[width / 32] &= (1u32 << (width % 32)) - 1; // the virtual end
            }
        }
        for &id in &self.eos {
            let bit = 1u32 << (id % 32);
            if may_end {
                mask[id as usize / 32] |= bit;
            } else {
                mask[id as usize / 32] &= !bit;
            }
        }
        Ok(())
    }

    pub fn accept(&mut self, token: u32) -> Result<()> {
        let refused = || invalid(format!("token {token} is not allowed by the grammar"));
        if self.ended || token as usize >= self.vocabulary.width {
            return Err(refused());
        }
        if self.eos.contains(&token) {
            if !self.may_end()? {
                return Err(refused());
            }
            self.ended = true;
        } else if self.walker.is_stopped() || !self.walker.try_consume(token).map_err(Self::failed)? {
            return Err(refused());
        }
        self.accepted.push(token);
        Ok(())
    }

    pub fn rollback(&mut self, count: usize) -> Result<()> {
        if count > self.accepted.len() {
            return Err(invalid(format!("rollback of {count} tokens, {} were accepted", self.accepted.len())));
        }
        self.accepted.truncate(self.accepted.len() - count);
        // The end of sequence is the last one, and the walker has not seen it.
        let unseen = usize::from(count > 0 && std::mem::take(&mut self.ended));
        self.walker.rollback(count - unseen).map_err(Self::failed)
    }

    /// Tokens that probably follow, since the grammar leaves little choice; nothing changes.
    pub fn foresee(&mut self, max_tokens: usize) -> Result<Foresight> {
        if self.ended || self.walker.is_stopped() {
            return Ok(Foresight::new());
        }
        let Vocabulary { tokenizer, factory, .. } = &*self.vocabulary;
        let trie = factory.tok_env().tok_trie();
        foresee(&mut self.walker, tokenizer, trie, &self.accepted, max_tokens).map_err(Self::failed)
    }

    pub fn is_finished(&self) -> bool {
        self.ended || self.walker.is_stopped()
    }
}
