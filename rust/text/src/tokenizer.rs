//! A model's tokenizer: `tokenizers` does the work of its pipeline, this file holds it together with what a server
//! needs: checks on load, control tokens by permission, exact streaming, linear cost and typed errors.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use tokenizers::tokenizer::normalizer::Range;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Token,
};

use crate::added::{Control, Entry, Found, Matcher};
use crate::decode::{Plan, Stream};
use crate::error::{internal, invalid, malformed, too_large, Result};
use crate::loading::{add_from_config, build_matchers, check_added, check_pieces, list_entries, special_content};
use crate::model::HfTokenizer;
use crate::parts;
use crate::source;
use crate::token_cache::{Kind, TokenCache};
use crate::words::Words;

/// More bytes than a request body may hold; the pipeline needs some 60 bytes of memory for each.
const MAX_TEXT_BYTES: usize = 16 << 20;

pub struct Piece<'a> {
    pub text: &'a str, // as the model writes it
    pub special: bool,
}

pub struct Tokenizer {
    hf: HfTokenizer,
    entries: HashMap<u32, Entry>,
    raw: Matcher,
    normalized: Matcher,
    words: Arc<Words>, // the model's own
    vocab_size: usize, // one more than the largest id
    plan: Plan,
    model_control: HashSet<u32>, // control tokens that the model itself could produce from text, but for <unk>
    frame: Option<Frame>,        // none: the post-processor is asked each time
    cuts_at_spaces: bool,        // see parts.rs, as the next
    beginning_matters: bool,
    pub cache: TokenCache,
}

/// What the post-processor puts around a text's tokens.
struct Frame {
    before: Vec<u32>,
    after: Vec<u32>,
}

impl Tokenizer {
    pub fn load(tokenizer_json: &[u8], config: Value, template: &str) -> Result<Tokenizer> {
        let source = source::read(tokenizer_json, check_added)?;
        let mut hf = source.hf;
        // Padding and truncation are the training script's; a prompt is never cut or filled silently.
        hf.with_padding(None);
        hf.with_truncation(None).map_err(|e| malformed(format!("tokenizer.json: {e}")))?;
        for added in &source.added_tokens {
            if !added.content.is_empty() && hf.token_to_id(&added.content).map(u64::from) != Some(added.id) {
                return Err(malformed(format!(
                    "tokenizer.json: added token `{}` says id {}, which the vocabulary does not give it",
                    added.content, added.id
                )));
            }
        }
        add_from_config(&mut hf, &config)?;
        let unknown = special_content(&config["unk_token"]).or(source.unk_token);

        let entries = list_entries(&hf, template);
        let words = source.words;
        let vocab_size = check_pieces(&words, &hf)?;
        let (raw, normalized) = build_matchers(&hf, &entries)?;
        let plan = Plan::from_json(&source.decoder)?;
        let model_control = entries
            .iter()
            .filter(|(id, entry)| {
                let content = &entry.token.content;
                let unknown = Some(content) == unknown.as_ref() || Some(u64::from(**id)) == source.unk_id;
                entry.control && !unknown && hf.get_model().token_to_id(content).is_some()
            })
            .map(|(id, _)| *id)
            .collect();
        let json = |part: std::result::Result<Value, serde_json::Error>| {
            part.map_err(|e| malformed(format!("tokenizer.json: {e}")))
        };
        let pre_tokenizer = json(serde_json::to_value(hf.get_pre_tokenizer()))?;
        let normalizer = json(serde_json::to_value(hf.get_normalizer()))?;
        let cuts_at_spaces =
            parts::cuts_at_spaces(&normalizer, &pre_tokenizer, normalized.may_cross_spaces(&entries));
        let beginning_matters = parts::beginning_matters(&pre_tokenizer);
        let frame = find_frame(&hf);
        let cache = TokenCache::new();
        Ok(Tokenizer {
            hf,
            entries,
            raw,
            normalized,
            words,
            vocab_size,
            plan,
            model_control,
            frame,
            cuts_at_spaces,
            beginning_matters,
            cache,
        })
    }

    /// What is remembered of the text is shared within equal `salt`s alone.
    pub fn encode(&self, text: &str, add_special_tokens: bool, control: &Control, salt: &[u8]) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(too_large(format!(
                "the text has {} bytes, at most {MAX_TEXT_BYTES} can be tokenized",
                text.len()
            )));
        }
        self.encode_guarded(text, add_special_tokens, control, Some(self.cache.salt(salt)))
    }

    /// Text of a user, of which nothing is remembered.
    pub fn encode_once(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_guarded(text, false, &Control::None, None)
    }

    fn encode_guarded(
        &self,
        text: &str,
        add_special_tokens: bool,
        control: &Control,
        salt: Option<u64>,
    ) -> Result<Vec<u32>> {
        // The pipeline's regular expressions panic when they give up, as on millions of spaces in a row.
        let run = || self.encode_parts(text, add_special_tokens, control, salt);
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let message = panic.downcast_ref::<String>().map_or("", String::as_str);
            if message.contains("limit") || message.contains("stack") {
                return Err(too_large("the text has a run of characters that is too long for the tokenizer"));
            }
            Err(internal(format!("tokenizer: {message}")))
        })
    }

    /// The first pass of the search cuts the text into added tokens and pieces, parts.rs the pieces into parts. No salt:
    /// nothing is remembered.
    fn encode_parts(
        &self,
        text: &str,
        add_special_tokens: bool,
        control: &Control,
        salt: Option<u64>,
    ) -> Result<Vec<u32>> {
        let mut ids = Vec::with_capacity(text.len() / 4 + 8);
        let cuts = self.cuts_at_spaces && salt.is_some() && self.cache.is_on(); // for the cache's sake alone
        let pieces = match self.raw.is_empty() {
            true => vec![Found { id: None, start: 0, end: text.len() }],
            false => self.raw.split(text, &self.entries, control, &|start, end| (start, end)),
        };
        for piece in pieces {
            match piece.id {
                Some(id) => ids.push(id),
                None if piece.start == piece.end && !self.raw.is_empty() => {}
                None => {
                    let mut done = piece.start;
                    loop {
                        let end = match cuts {
                            true => parts::next_cut(&text[..piece.end], done),
                            false => piece.end,
                        };
                        self.encode_part(text, done, end, control, salt, &mut ids)?;
                        done = end;
                        if done == piece.end {
                            break;
                        }
                    }
                }
            }
        }
        if add_special_tokens {
            self.add_frame(ids)
        } else {
            Ok(ids)
        }
    }

    /// Appends the tokens of text[start..end], a part by itself (parts.rs).
    fn encode_part(
        &self,
        text: &str,
        start: usize,
        end: usize,
        control: &Control,
        salt: Option<u64>,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let part = &text[start..end];
        let begins = self.beginning_matters && start == 0;
        // Where marks within the part decide, the part's text alone does not.
        let Some(salt) = salt.filter(|_| !control.marks(start, end) && self.cache.takes(part)) else {
            return self.run_pipeline(text, start, end, control, ids);
        };
        let mode = match control {
            Control::None => 0,
            Control::All => 1,
            Control::AllBut(_) => 2,
        };
        let kind = Kind { mode: mode + u8::from(begins) * 4, salt };
        let hash = self.cache.hash(kind, part);
        if self.cache.find(hash, kind, part, ids) {
            return Ok(());
        }
        let known = ids.len();
        self.run_pipeline(text, start, end, control, ids)?;
        self.cache.insert(hash, kind, part, &ids[known..]);
        Ok(())
    }

    fn run_pipeline(
        &self,
        text: &str,
        start: usize,
        end: usize,
        control: &Control,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let failed = |e: tokenizers::Error| internal(format!("tokenizer: {e}"));
        // Where the beginning matters, one that is none is to be seen: a character before it, which is cut off.
        let origin = match text[..start].char_indices().next_back() {
            Some((at, _)) if self.beginning_matters => at,
            _ => start,
        };
        let mut whole = NormalizedString::from(&text[origin..end]);
        if origin < start {
            let range = Range::Original(start - origin..end - origin);
            whole = whole.slice(range).ok_or_else(|| internal("tokenizer: a part cannot be cut off"))?;
        }
        let mut pretokenized = PreTokenizedString::from(whole);
        let normalizer = self.hf.get_normalizer();
        if normalizer.is_some() || !self.normalized.is_empty() {
            pretokenized
                .split(|_, mut sequence| {
                    if let Some(normalizer) = normalizer {
                        normalizer.normalize(&mut sequence)?;
                    }
                    let offset = origin + sequence.offsets_original().0;
                    let found = self.normalized.split(sequence.get(), &self.entries, control, &|start, end| {
                        let range = sequence.convert_offsets(Range::Normalized(start..end)).unwrap_or(start..end);
                        (offset + range.start, offset + range.end)
                    });
                    Ok(cut(sequence, found))
                })
                .map_err(failed)?;
        }
        if let Some(pre_tokenizer) = self.hf.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pretokenized).map_err(failed)?;
        }
        if self.model_control.is_empty() || matches!(control, Control::All) {
            self.hf.get_model().tokenize_in_pretokenized(&mut pretokenized, None).map_err(failed)?;
        } else {
            pretokenized.tokenize(|piece| self.tokenize_untrusted(piece.get())).map_err(failed)?;
        }
        for (_, _, tokens) in pretokenized.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            let tokens = tokens.as_ref().ok_or_else(|| internal("tokenizer: a piece was left out"))?;
            ids.extend(tokens.iter().map(|token| token.id));
        }
        Ok(())
    }

    fn add_frame(&self, ids: Vec<u32>) -> Result<Vec<u32>> {
        if let Some(frame) = &self.frame {
            let mut framed = Vec::with_capacity(frame.before.len() + ids.len() + frame.after.len());
            framed.extend_from_slice(&frame.before);
            framed.extend_from_slice(&ids);
            framed.extend_from_slice(&frame.after);
            return Ok(framed);
        }
        post_process(&self.hf, &ids).map_err(|e| internal(format!("tokenizer: {e}")))
    }

    /// The model's own vocabulary may hold control tokens (`</s>` is a piece of a Unigram model), which it then finds in
    /// plain text by itself. Where it does, the look-alikes are cut in two and the parts are tokenized on their own.
    fn tokenize_untrusted(&self, text: &str) -> tokenizers::Result<Vec<Token>> {
        let model = self.hf.get_model();
        let tokens = model.tokenize(text)?;
        if tokens.iter().all(|token| !self.model_control.contains(&token.id)) {
            return Ok(tokens);
        }
        let mut cuts = Vec::new();
        let found: HashSet<u32> =
            tokens.iter().map(|token| token.id).filter(|id| self.model_control.contains(id)).collect();
        for literal in found.iter().filter_map(|id| self.piece(*id)) {
            for (at, found) in text.match_indices(literal.text) {
                cuts.push(at + found.chars().next().map_or(0, char::len_utf8));
            }
        }
        cuts.push(text.len());
        cuts.sort_unstable();
        cuts.dedup();
        let mut out = Vec::new();
        let mut done = 0;
        for cut in cuts {
            for mut token in model.tokenize(&text[done..cut])? {
                token.offsets = (token.offsets.0 + done, token.offsets.1 + done);
                if !self.model_control.contains(&token.id) {
                    out.push(token);
                }
            }
            done = cut;
        }
        Ok(out)
    }

    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        let mut stream = self.plan.start();
        let mut out = String::new();
        for &id in ids {
            self.push(&mut stream, id, skip_special_tokens, &mut out)?;
        }
        stream.finish(&mut out);
        Ok(out)
    }

    pub fn new_stream(&self) -> Stream {
        self.plan.start()
    }

    /// Ids that no token has (a padded row of logits) stand for nothing; negative ones are a caller's mistake.
    pub fn push(&self, stream: &mut Stream, id: u32, skip_special_tokens: bool, out: &mut String) -> Result<()> {
        if id > i32::MAX as u32 {
            return Err(invalid(format!("token {} is negative", id as i32)));
        }
        if let Some(piece) = self.piece(id) {
            if !(skip_special_tokens && piece.special) {
                stream.push(piece.text, out);
            }
        }
        Ok(())
    }

    pub fn piece(&self, id: u32) -> Option<Piece<'_>> {
        match self.entries.get(&id) {
            Some(entry) => Some(Piece { text: &entry.token.content, special: entry.special }),
            None => self.words.text(id).map(|text| Piece { text, special: false }),
        }
    }

    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.hf.token_to_id(token)
    }

    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        match (self.entries.get(&id), self.piece(id)) {
            (Some(entry), _) if entry.control => entry.token.content.clone().into_bytes(),
            (_, Some(piece)) => self.plan.token_bytes(piece.text),
            _ => Vec::new(),
        }
    }

    pub fn is_special(&self, id: u32) -> bool {
        self.piece(id).is_some_and(|piece| piece.special)
    }

    pub fn is_control(&self, id: u32) -> bool {
        self.entries.get(&id).is_some_and(|entry| entry.control)
    }

    /// The strings that a user's text must not turn into tokens, and whether each is special.
    pub fn control_literals(&self) -> impl Iterator<Item = (&str, bool)> {
        let control = self.entries.values().filter(|entry| entry.control);
        control.map(|entry| (entry.token.content.as_str(), entry.token.special))
    }

    /// Where control tokens would be found in `text` if it were trusted: (id, start, end) in bytes.
    pub fn find_control(&self, text: &str) -> Vec<(u32, usize, usize)> {
        let mut ranges = Vec::new();
        for found in self.raw.split(text, &self.entries, &Control::All, &|start, end| (start, end)) {
            if let Some(id) = found.id.filter(|id| self.is_control(*id)) {
                ranges.push((id, found.start, found.end));
            }
        }
        if self.normalized.has_control() && self.hf.get_normalizer().is_none() {
            for found in self.normalized.split(text, &self.entries, &Control::All, &|start, end| (start, end)) {
                if let Some(id) = found.id.filter(|id| self.is_control(*id)) {
                    ranges.push((id, found.start, found.end));
                }
            }
        } else if self.normalized.has_control() {
            let mut sequence = tokenizers::NormalizedString::from(text);
            let normalized = self.hf.get_normalizer().map_or(Ok(()), |normalizer| normalizer.normalize(&mut sequence));
            if normalized.is_ok() {
                for found in self.normalized.split(sequence.get(), &self.entries, &Control::All, &|s, e| (s, e)) {
                    let range = sequence.convert_offsets(Range::Normalized(found.start..found.end));
                    if let (Some(id), Some(range)) = (found.id, range) {
                        if self.is_control(id) {
                            ranges.push((id, range.start, range.end));
                        }
                    }
                }
            }
        }
        ranges
    }
}

fn cut(
    sequence: tokenizers::NormalizedString,
    found: Vec<Found>,
) -> Vec<(tokenizers::NormalizedString, Option<Vec<Token>>)> {
    let mut splits = Vec::with_capacity(found.len());
    if let [Found { id: None, .. }] = found.as_slice() {
        return vec![(sequence, None)];
    }
    for piece in found {
        let Some(slice) = sequence.slice(Range::Normalized(piece.start..piece.end)) else {
            continue;
        };
        let tokens = piece.id.map(|id| {
            let value = slice.get().to_owned();
            let end = value.len();
            vec![Token::new(id, value, (0, end))]
        });
        splits.push((slice, tokens));
    }
    splits
}

/// What the post-processor makes of a text's tokens.
fn post_process(hf: &HfTokenizer, ids: &[u32]) -> tokenizers::Result<Vec<u32>> {
    let mut text = PreTokenizedString::from("x");
    text.tokenize(|_| Ok(ids.iter().map(|&id| Token::new(id, String::new(), (0, 0))).collect()))?;
    let encoding = text.into_encoding(None, 0, OffsetType::None)?;
    Ok(hf.post_process(encoding, None, true)?.get_ids().to_vec())
}

/// None where the post-processor does something else than to put the same around all tokens.
fn find_frame(hf: &HfTokenizer) -> Option<Frame> {
    const MARK: u32 = u32::MAX; // no token has it
    let around_one = post_process(hf, &[MARK]).ok()?;
    let at = around_one.iter().position(|&id| id == MARK)?;
    let frame = Frame { before: around_one[..at].to_vec(), after: around_one[at + 1..].to_vec() };
    for length in [0, 2, 3] {
        let expected = [frame.before.clone(), vec![MARK; length], frame.after.clone()].concat();
        if post_process(hf, &vec![MARK; length]).ok()? != expected {
            return None;
        }
    }
    Some(frame)
}
