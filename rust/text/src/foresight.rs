//! What a grammar leaves little choice about, as tokens: guesses for speculative decoding. Keys of a schema, what ends
//! them, the rest of an enum's value whose beginning is there.
//!
//! The grammar says bytes. With which tokens the model writes them it chooses itself, so what is said here is what the
//! tokenizer makes of them, to be verified like any other guess.
//!
//! White space between the parts of JSON is a choice. If it ended the guess, little would be left of it: a key, but not
//! the colon behind it, nor the quote behind that. So it is guessed as well: as it stood last between the same two
//! bytes, else as most JSON has it.
//!
//! Questions only: the parser is pushed in its speculative mode, and stands where it stood. Bounded, as a grammar may
//! hold hundreds of kilobytes of one text.

use llguidance::derivre::NextByte;
use llguidance::earley::{Parser, ParserRecognizer};
use llguidance::toktrie::{Recognizer, TokTrie};

use crate::tokenizer::Tokenizer;
use crate::walker::Walker;

/// Of text for each token that is asked for, and one more: most tokens are shorter.
const BYTES_PER_TOKEN: usize = 8;
/// Of the parser's work, an item being about a microsecond. Of a schema there are some dozens for each part of the text,
/// of an ambiguous grammar there may be a thousand for each byte.
const MAX_ITEMS: usize = 3_000;
/// Of what is written, the tokens that are looked at for white space.
const REMEMBERED_TOKENS: usize = 256;
/// Of what is written, the tokens that the text is tokenized together with: how text is cut depends on what is before.
const CONTEXT_TOKENS: usize = 4;

/// How sure it is that a token follows.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Certainty {
    Text = 0,  // its text follows; only in which tokens it is written is a guess
    Space = 1, // if the white space in it, or in front of it, is what is guessed, or none
    End = 2,   // behind it there is a choice: it may be written together with what comes of that
}

pub type Foresight = Vec<(u32, Certainty)>;

enum End {
    Open,   // there it may go on in several ways
    Closed, // nothing follows
    Cut,    // it goes on, but is not followed further
}

struct Text {
    bytes: Vec<u8>,
    spaces: Vec<usize>, // where white space was guessed, or none
    end: End,
}

/// At most `max_tokens`, behind the tokens that are written.
pub fn foresee(
    walker: &mut Walker,
    tokenizer: &Tokenizer,
    trie: &TokTrie,
    written: &[u32],
    max_tokens: usize,
) -> Result<Foresight, String> {
    let limit = BYTES_PER_TOKEN * (max_tokens + 1);
    let mut text = walker.ask(|parser| foresee_text(parser, trie, written, limit))?;
    let whole = whole_characters(&text.bytes);
    if whole < text.bytes.len() {
        text.bytes.truncate(whole);
        text.end = End::Cut;
    }
    if text.bytes.is_empty() {
        return Ok(Foresight::new());
    }
    let mut tokens = tokenize(tokenizer, trie, written, &text.bytes);
    let is_whole = tokens.len() <= max_tokens;
    tokens.truncate(max_tokens);
    if is_whole && matches!(text.end, End::Cut) {
        tokens.pop(); // the text goes on, and with it the token
    }
    let mut foresight = certainties(trie, &tokens, &text.spaces);
    if is_whole && matches!(text.end, End::Open) {
        foresight.last_mut().into_iter().for_each(|last| last.1 = Certainty::End);
    }
    Ok(foresight)
}

fn certainties(trie: &TokTrie, tokens: &[u32], spaces: &[usize]) -> Foresight {
    let mut begin = 0;
    let mut certainty = |token: u32| {
        let range = begin..begin + trie.token_len(token);
        begin = range.end;
        if spaces.iter().any(|at| range.contains(at)) { Certainty::Space } else { Certainty::Text }
    };
    tokens.iter().map(|token| (*token, certainty(*token))).collect()
}

fn foresee_text(parser: &mut Parser, trie: &TokTrie, written: &[u32], limit: usize) -> Text {
    let mut spaces = Spaces { trie, written, text: None };
    parser.with_recognizer(|recognizer| {
        recognizer.trie_started("foresight");
        let followed = follow(recognizer, &mut spaces, limit);
        recognizer.trie_finished(); // pops what was pushed
        followed
    })
}

fn follow(recognizer: &mut ParserRecognizer, written: &mut Spaces, limit: usize) -> Text {
    let mut bytes = Vec::new();
    let mut spaces = Vec::new();
    let items = recognizer.stats_mut().all_items;
    let end = loop {
        let known = bytes.len();
        if known >= limit || recognizer.stats_mut().all_items > items + MAX_ITEMS {
            break End::Cut;
        }
        match next_byte(recognizer) {
            Next::One(TokTrie::SPECIAL_TOKEN_MARKER) | Next::Many => break End::Open,
            Next::Nothing => break End::Closed,
            Next::One(byte) => bytes.push(byte),
            Next::Spaced(byte) => {
                spaces.push(known);
                bytes.extend(written.between(bytes.last().copied(), byte));
                bytes.push(byte);
            }
        }
        if !bytes[known..].iter().all(|byte| recognizer.try_push_byte(*byte)) {
            bytes.truncate(known); // other white space than was guessed
            break End::Open;
        }
    };
    Text { bytes, spaces, end }
}

enum Next {
    Nothing,
    One(u8),
    Spaced(u8), // this one, or white space
    Many,
}

fn next_byte(recognizer: &mut ParserRecognizer) -> Next {
    let state = recognizer.lexer_state();
    let hint = recognizer.lexer_mut().next_byte(state);
    if let NextByte::ForcedByte(byte) = hint {
        return Next::One(byte);
    }
    let mut found = None;
    let mut spaces = Vec::new();
    // Those first that most texts may go on with: where there is a choice, two of them tell.
    let from_letters = (0..=u8::MAX).map(|offset| b'a'.wrapping_add(offset));
    for byte in hint.some_bytes().iter().copied().chain(from_letters) {
        if found == Some(byte) || spaces.contains(&byte) || !recognizer.try_push_byte(byte) {
            continue;
        }
        recognizer.pop_bytes(1);
        if is_space(byte) {
            spaces.push(byte);
        } else if found.is_some() {
            return Next::Many;
        } else {
            found = Some(byte);
        }
    }
    match (found, spaces.as_slice()) {
        (Some(byte), []) => Next::One(byte),
        (Some(byte), _) => Next::Spaced(byte),
        (None, []) => Next::Nothing,
        (None, [space]) => Next::One(*space),
        (None, _) => Next::Many,
    }
}

/// That of JSON.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\n' | b'\r' | b'\t')
}

struct Spaces<'a> {
    trie: &'a TokTrie,
    written: &'a [u32],
    text: Option<Vec<u8>>, // of what is written, decoded once it is asked for
}

impl Spaces<'_> {
    /// What stands before `next`, behind `previous`, or where that is none behind what is written.
    fn between(&mut self, previous: Option<u8>, next: u8) -> Vec<u8> {
        let recent = &self.written[self.written.len().saturating_sub(REMEMBERED_TOKENS)..];
        let text = self.text.get_or_insert_with(|| recent.iter().flat_map(|id| self.trie.token(*id)).copied().collect());
        let Some(previous) = previous.or(text.last().copied()) else {
            return Vec::new();
        };
        for at in (0..text.len()).rev().filter(|at| text[*at] == next) {
            let before = text[..at].iter().rposition(|byte| !is_space(*byte));
            if let Some(before) = before.filter(|before| text[*before] == previous) {
                return text[before + 1..at].to_vec();
            }
        }
        match previous {
            b':' | b',' => vec![b' '],
            _ => Vec::new(),
        }
    }
}

/// Up to the end of the last whole character.
fn whole_characters(text: &[u8]) -> usize {
    for (back, byte) in text.iter().rev().take(4).enumerate() {
        let length = match byte {
            0x80..=0xbf => continue,
            0xc0..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xff => 4,
            _ => 1,
        };
        return if length > back + 1 { text.len() - back - 1 } else { text.len() };
    }
    text.len()
}

fn tokenize(tokenizer: &Tokenizer, trie: &TokTrie, written: &[u32], text: &[u8]) -> Vec<u32> {
    tokenize_behind(tokenizer, written, text).unwrap_or_else(|| tokenize_greedily(trie, text))
}

/// As the tokenizer has it behind what is written; none where it would not cut between the two, or changes the text.
fn tokenize_behind(tokenizer: &Tokenizer, written: &[u32], text: &[u8]) -> Option<Vec<u32>> {
    let recent = &written[written.len().saturating_sub(CONTEXT_TOKENS)..];
    let after_control = recent.iter().rposition(|id| tokenizer.is_control(*id)).map_or(0, |at| at + 1);
    let mut whole: Vec<u8> = recent[after_control..].iter().flat_map(|id| tokenizer.token_bytes(*id)).collect();
    whole.extend_from_slice(text);
    // The first of the tokens may begin within a character.
    let begin = whole.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
    let tokens = tokenizer.encode_once(std::str::from_utf8(&whole[begin..]).ok()?).ok()?;
    let mut left = text;
    let mut first = tokens.len();
    while !left.is_empty() {
        first = first.checked_sub(1)?;
        left = left.strip_suffix(tokenizer.token_bytes(tokens[first]).as_slice())?;
    }
    Some(tokens[first..].to_vec())
}

/// The longest token at each place, as far as there is one.
fn tokenize_greedily(trie: &TokTrie, text: &[u8]) -> Vec<u32> {
    let mut left = text;
    let mut follows = |id: &u32| match left.strip_prefix(trie.token(*id)) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    trie.greedy_tokenize(text).into_iter().take_while(|id| follows(id)).collect()
}
