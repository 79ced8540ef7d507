//! Finding added tokens in text, under the law that a user's text never becomes a control token.
//!
//! The search is that of `tokenizers` (leftmost longest, `single_word`, `lstrip`, `rstrip`), done here because the
//! decision whether a match counts depends on where its characters come from, which the library cannot know.
//!
//! A *control* token is an added token that steers the model: every `special` one, and those that are not part of the
//! model's own vocabulary or that the chat template or the config names (`<tool_call>`, `<think>`). The others (runs of
//! spaces or newlines, HTML tags that a SentencePiece vocabulary protects) are ordinary vocabulary and are found in any
//! text, as the model saw them in training.

use std::collections::HashMap;

use daachorse::{DoubleArrayAhoCorasick, DoubleArrayAhoCorasickBuilder, MatchKind};
use tokenizers::AddedToken;

use crate::error::{malformed, Result};

/// Which control tokens the text may hold.
pub enum Control<'a> {
    None,
    All,
    /// All but those with one of these byte positions (ascending) strictly inside: the seams and insides of user text.
    AllBut(&'a [usize]),
}

impl Control<'_> {
    /// Whether a mark stands in [start, end).
    pub fn marks(&self, start: usize, end: usize) -> bool {
        match self {
            Control::None | Control::All => false,
            Control::AllBut(marks) => marks.get(marks.partition_point(|&mark| mark < start)).is_some_and(|&m| m < end),
        }
    }

    /// May a control token stand at [start, end) of the original text? A mark inside of it says no; a token of one
    /// character has no inside, so that a mark before it counts.
    fn allows(&self, start: usize, end: usize, one_char: bool) -> bool {
        match self {
            Control::None => false,
            Control::All => true,
            Control::AllBut(marks) => {
                let first = marks.partition_point(|&mark| if one_char { mark < start } else { mark <= start });
                first >= marks.len() || marks[first] >= end
            }
        }
    }
}

pub struct Entry {
    pub token: AddedToken,
    pub special: bool, // it was special once: tokenizer.json may say so and the config no more
    pub control: bool,
}

type Trie = DoubleArrayAhoCorasick<u32>;

/// One pass of the search: patterns against raw text, or normalized patterns against normalized text.
pub struct Matcher {
    all: Option<Trie>,
    ordinary: Option<Trie>,
    has_control: bool,
    ids: Vec<u32>,
}

pub struct Found {
    pub id: Option<u32>,
    pub start: usize,
    pub end: usize,
}

fn build(patterns: &[(String, u32)]) -> Result<Option<Trie>> {
    if patterns.is_empty() {
        return Ok(None);
    }
    DoubleArrayAhoCorasickBuilder::new()
        .match_kind(MatchKind::LeftmostLongest)
        .build_with_values(patterns.iter().map(|(pattern, id)| (pattern.as_str(), *id)))
        .map(Some)
        .map_err(|error| malformed(format!("tokenizer.json: added_tokens clash: {error}")))
}

fn is_word(c: char) -> bool {
    regex_syntax::try_is_word_character(c).unwrap_or(false)
}

impl Matcher {
    pub fn new(patterns: Vec<(String, u32)>, entries: &HashMap<u32, Entry>) -> Result<Matcher> {
        let ordinary: Vec<_> = patterns.iter().filter(|(_, id)| !entries[id].control).cloned().collect();
        let has_control = ordinary.len() < patterns.len();
        let ids = patterns.iter().map(|(_, id)| *id).collect();
        Ok(Matcher { all: build(&patterns)?, ordinary: build(&ordinary)?, has_control, ids })
    }

    /// Whether a token might be found otherwise where the text is cut between a letter and a space.
    pub fn may_cross_spaces(&self, entries: &HashMap<u32, Entry>) -> bool {
        self.ids.iter().map(|id| &entries[id].token).any(|token| {
            let flags = token.single_word || token.lstrip || token.rstrip;
            flags || token.content.chars().any(char::is_whitespace)
        })
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_none()
    }

    pub fn has_control(&self) -> bool {
        self.has_control
    }

    /// The next match at or after `from` that counts: (id, start, end). `allowed` judges control tokens.
    fn next(
        &self,
        text: &str,
        mut from: usize,
        users_only: bool,
        entries: &HashMap<u32, Entry>,
        allowed: &dyn Fn(u32, usize, usize) -> bool,
    ) -> Option<(u32, usize, usize)> {
        let first = |trie: &Option<Trie>, at: usize, end: usize| {
            let found = trie.as_ref()?.leftmost_find_iter(&text[at..end]).next()?;
            Some((found.value(), at + found.start(), at + found.end()))
        };
        if users_only {
            return first(&self.ordinary, from, text.len());
        }
        loop {
            let (id, start, end) = first(&self.all, from, text.len())?;
            if !entries[&id].control || allowed(id, start, end) {
                return Some((id, start, end));
            }
            // A look-alike: an ordinary token may still begin at the same place, anything may begin inside of it.
            if let Some(found) = first(&self.ordinary, start, end) {
                if found.1 == start {
                    return Some(found);
                }
            }
            from = start + text[start..].chars().next().map_or(1, char::len_utf8);
        }
    }

    /// Splits `text` into added tokens and what lies between. `to_original` maps a range of `text` to the positions
    /// that `control` speaks about.
    pub fn split(
        &self,
        text: &str,
        entries: &HashMap<u32, Entry>,
        control: &Control,
        to_original: &dyn Fn(usize, usize) -> (usize, usize),
    ) -> Vec<Found> {
        let mut pieces = Vec::new();
        let mut done = 0; // everything before is in `pieces`
        let mut from = 0; // where the search goes on
        let users_only = matches!(control, Control::None);
        let allowed = |id: u32, start: usize, end: usize| {
            let one_char = entries[&id].token.content.chars().nth(1).is_none();
            let (start, end) = to_original(start, end);
            control.allows(start, end, one_char)
        };
        while let Some((id, match_start, match_end)) = self.next(text, from, users_only, entries, &allowed) {
            from = match_end;
            let token = &entries[&id].token;
            let (mut start, mut end) = (match_start, match_end);
            if start < done {
                continue; // swallowed by the rstrip of the token before
            }
            if token.single_word {
                let joined = text[..start].chars().next_back().is_some_and(is_word)
                    || text[end..].chars().next().is_some_and(is_word);
                if joined {
                    continue;
                }
            }
            if token.lstrip {
                start = done + text[done..start].trim_end().len();
            }
            if token.rstrip {
                end += text[end..].len() - text[end..].trim_start().len();
            }
            if done < start {
                pieces.push(Found { id: None, start: done, end: start });
            }
            pieces.push(Found { id: Some(id), start, end });
            done = end;
        }
        if done < text.len() || pieces.is_empty() {
            pieces.push(Found { id: None, start: done, end: text.len() });
        }
        pieces
    }
}
