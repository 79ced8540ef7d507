//! Keeping a user's strings from becoming control tokens on their way through a chat template.
//!
//! Before rendering, a mark (one private-use character that occurs nowhere in the request or the template) goes into
//! every string of the request where it could become a control token: inside each look-alike, and at either end where
//! the string could be completed to one by what the template puts next to it. After rendering the marks are taken out
//! again; where they stood, no control token is recognised. A string without look-alikes is never touched, so that
//! ordinary conversations render and tokenize exactly as `transformers` does.
//!
//! Messages of the assistant are the model's own earlier output: in them only `special` tokens are look-alikes, so that
//! `<think>` or `<tool_call>` become again the tokens they were, and templates that look for them find them.

use std::collections::HashSet;

use serde_json::Value as Json;

use crate::error::{invalid, Result};
use crate::template::ChatInput;
use crate::tokenizer::Tokenizer;

/// Where literals begin and end, to find halves of them at the ends of a string.
struct Affixes {
    prefixes: HashSet<String>,
    suffixes: HashSet<String>,
    longest: usize, // in characters
}

impl Affixes {
    fn new<'a>(literals: impl Iterator<Item = &'a str>) -> Affixes {
        let mut affixes = Affixes { prefixes: HashSet::new(), suffixes: HashSet::new(), longest: 0 };
        for literal in literals {
            for (at, _) in literal.char_indices().skip(1) {
                affixes.prefixes.insert(literal[..at].to_owned());
                affixes.suffixes.insert(literal[at..].to_owned());
            }
            affixes.longest = affixes.longest.max(literal.chars().count());
        }
        affixes
    }

    fn mark(&self, text: &str, marks: &mut Vec<usize>) {
        let ends = text.char_indices().map(|(at, c)| at + c.len_utf8()).take(self.longest);
        if ends.into_iter().any(|end| self.suffixes.contains(&text[..end])) {
            marks.push(0);
        }
        for (at, c) in text.char_indices().rev().take(self.longest) {
            if self.prefixes.contains(&text[at..]) {
                marks.push(at + c.len_utf8());
            }
        }
    }
}

pub struct Marker {
    all: Affixes,
    special: Affixes,
}

impl Marker {
    pub fn new(tokenizer: &Tokenizer) -> Marker {
        Marker {
            all: Affixes::new(tokenizer.control_literals().map(|(literal, _)| literal)),
            special: Affixes::new(
                tokenizer.control_literals().filter(|(_, special)| *special).map(|(literal, _)| literal),
            ),
        }
    }

    /// The mark that was put into the request's strings, or none where nothing had to be marked.
    pub fn mark(&self, tokenizer: &Tokenizer, chat: &mut ChatInput, template: &str) -> Result<Option<char>> {
        let mark = choose_mark(chat, template)?;
        let mut pass = Pass { marker: self, tokenizer, mark, any: false };
        if let Some(messages) = chat.messages.as_array_mut() {
            for message in messages {
                let own = message["role"] == "assistant";
                pass.value(message, own);
            }
        }
        if let Some(tools) = &mut chat.tools {
            pass.value(tools, false);
        }
        pass.value(&mut chat.kwargs, false);
        Ok(pass.any.then_some(mark))
    }
}

struct Pass<'a> {
    marker: &'a Marker,
    tokenizer: &'a Tokenizer,
    mark: char,
    any: bool,
}

impl Pass<'_> {
    fn value(&mut self, value: &mut Json, own: bool) {
        match value {
            Json::String(text) => {
                if let Some(marked) = self.text(text, own) {
                    *text = marked;
                }
            }
            Json::Array(items) => items.iter_mut().for_each(|item| self.value(item, own)),
            Json::Object(map) => {
                let old = std::mem::take(map);
                for (key, mut inner) in old {
                    self.value(&mut inner, own);
                    let key = self.text(&key, own).unwrap_or(key);
                    map.insert(key, inner);
                }
            }
            _ => {}
        }
    }

    fn text(&mut self, text: &str, own: bool) -> Option<String> {
        if text.is_empty() {
            return None;
        }
        let mut marks = Vec::new();
        for (id, start, end) in self.tokenizer.find_control(text) {
            if own && !self.tokenizer.is_special(id) {
                continue;
            }
            // Strip flags may have widened the range by white space: mark before the token's own characters end.
            let found = &text[start..end];
            let core = start + (found.len() - found.trim_start().len());
            let inside = core + text[core..end].chars().next().map_or(0, char::len_utf8);
            marks.push(if inside < end { inside } else { core });
        }
        let affixes = if own { &self.marker.special } else { &self.marker.all };
        affixes.mark(text, &mut marks);
        if marks.is_empty() {
            return None;
        }
        marks.sort_unstable();
        marks.dedup();
        self.any = true;
        let mut out = String::with_capacity(text.len() + marks.len() * 4);
        let mut done = 0;
        for at in marks {
            out.push_str(&text[done..at]);
            out.push(self.mark);
            done = at;
        }
        out.push_str(&text[done..]);
        Some(out)
    }
}

/// The rendered text without marks, and where they stood in it.
pub fn take_marks(rendered: &str, mark: char) -> (String, Vec<usize>) {
    let mut text = String::with_capacity(rendered.len());
    let mut marks = Vec::new();
    for (at, part) in rendered.split(mark).enumerate() {
        if at > 0 {
            marks.push(text.len());
        }
        text.push_str(part);
    }
    (text, marks)
}

fn collect_private(value: &Json, seen: &mut HashSet<char>) {
    let mut add = |text: &str| seen.extend(text.chars().filter(|c| *c >= '\u{f0000}'));
    match value {
        Json::String(text) => add(text),
        Json::Array(items) => items.iter().for_each(|item| collect_private(item, seen)),
        Json::Object(map) => {
            map.keys().for_each(|key| add(key));
            map.values().for_each(|item| collect_private(item, seen));
        }
        _ => {}
    }
}

fn choose_mark(chat: &ChatInput, template: &str) -> Result<char> {
    let mut seen: HashSet<char> = template.chars().filter(|c| *c >= '\u{f0000}').collect();
    collect_private(&chat.messages, &mut seen);
    collect_private(&chat.kwargs, &mut seen);
    if let Some(tools) = &chat.tools {
        collect_private(tools, &mut seen);
    }
    ('\u{f0000}'..='\u{10fffd}')
        .rev()
        .find(|c| !seen.contains(c))
        .ok_or_else(|| invalid("the messages use every private-use character"))
}
