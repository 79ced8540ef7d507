//! Where a text may be cut so that its parts, tokenized on their own, have the tokens of the whole.
//!
//! Two kinds of places, each with its reason:
//!
//! 1. Before and after an added token that the first pass of the search finds (Matcher, over raw text). The pipeline
//!    itself cuts there, before it normalizes, and hands every piece through normalizer, second pass, pre-tokenizer and
//!    model on its own (`PreTokenizedString::split` and `tokenize`). One of them all looks beyond its piece: Metaspace
//!    with `prepend_scheme` "first" asks whether the piece begins the text, so that is part of a part's key there.
//!    What looks at neighbours (`single_word`, `lstrip`, `rstrip`) belongs to that first pass, which sees the whole text.
//!
//! 2. Between a letter and a space that a letter follows, all three ASCII, where the pre-tokenizer is byte-level with
//!    one of the usual regular expressions. Each of their alternatives is in ALTERNATIVES below, none of which
//!      - matches a letter and then a space: so a word ends there, in the whole and in its part;
//!      - looks behind: so what follows is matched as if the text began with the space;
//!      - looks ahead further than to the end of what it matches, but for `\s+(?!\S)`, which matches white space alone
//!        and so ends before the letter: so the end of the part changes nothing before it.
//!    No alternative leaves a letter or a space to what lies between matches. A prefix space would be added to every
//!    part, so there must be none; normalizers other than NFC and its kin are not considered, and those leave ASCII as
//!    it is and combine nothing with a space or with the letter before it, since the space separates them. Tokens that
//!    the second pass could find across such a place (they hold white space, or look at neighbours) exclude it.
//!
//! Models without such a pre-tokenizer (SentencePiece's) may merge across any character: they have the first kind alone.

use serde_json::Value;

/// Long enough that looking it up is nothing beside tokenizing it, short enough that a text that differs in its middle
/// shares what is before.
const MIN_PART: usize = 1024;

const ALTERNATIVES: &[&str] = &[
    "'s",
    "'t",
    "'re",
    "'ve",
    "'m",
    "'ll",
    "'d",
    "'(?:[sdmt]|ll|ve|re)",
    "'(?i:[sdmt]|ll|ve|re)",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r" ?\p{L}+",
    r" ?\p{N}+",
    r" ?[^\s\p{L}\p{N}]+",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?+\p{L}+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"\p{N}",
    r"\p{N}{1,3}",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
];

/// The alternatives of a regular expression, as far as parentheses and brackets say where they end.
fn alternatives(regex: &str) -> Vec<&str> {
    let (mut depth, mut in_class, mut escaped) = (0, false, false);
    let mut found = Vec::new();
    let mut begin = 0;
    for (at, c) in regex.char_indices() {
        match c {
            _ if escaped => {
                escaped = false;
                continue;
            }
            '\\' => escaped = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth -= 1,
            '|' if !in_class && depth == 0 => {
                found.push(&regex[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.push(&regex[begin..]);
    found
}

fn is_known_regex(regex: &str) -> bool {
    let parts = alternatives(regex);
    // Nothing is left over between matches: letters have an alternative, and so has white space.
    let has_letters = parts.iter().any(|part| part.contains(r"\p{L}+") || part.contains(r"\p{Ll}"));
    has_letters && parts.contains(&r"\s+") && parts.iter().all(|part| ALTERNATIVES.contains(part))
}

/// Whether this step of a pre-tokenizer treats the parts as it treats the whole; none: not known to.
/// Some(true): and cuts between them itself.
fn step(step: &Value) -> Option<bool> {
    match step["type"].as_str()? {
        "Digits" => Some(false),
        "ByteLevel" if step["add_prefix_space"] == false => Some(step["use_regex"] != false),
        "Split" if step["behavior"] == "Isolated" && step["invert"] != true => {
            is_known_regex(step["pattern"]["Regex"].as_str()?).then_some(true)
        }
        _ => None,
    }
}

/// Whether parts of the second kind may be made. `patterns`: the tokens of the search's second pass.
pub fn cuts_at_spaces(normalizer: &Value, pre_tokenizer: &Value, second_pass_may_cross: bool) -> bool {
    let plain = normalizer.is_null() || matches!(normalizer["type"].as_str(), Some("NFC" | "NFD" | "NFKC" | "NFKD"));
    let steps = match pre_tokenizer["type"].as_str() {
        Some("Sequence") => pre_tokenizer["pretokenizers"].as_array().map_or(&[][..], Vec::as_slice),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let cuts: Option<Vec<bool>> = steps.iter().map(step).collect();
    plain && !second_pass_may_cross && cuts.is_some_and(|cuts| cuts.contains(&true))
}

/// Whether a piece at the beginning of the text is treated unlike the same piece elsewhere.
pub fn beginning_matters(pre_tokenizer: &Value) -> bool {
    match pre_tokenizer {
        Value::Object(map) => map.iter().any(|(key, value)| {
            (key == "prepend_scheme" && value != "always" && value != "never") || beginning_matters(value)
        }),
        Value::Array(items) => items.iter().any(beginning_matters),
        _ => false,
    }
}

/// The end of the part of `text` that begins at `from`, where it may be cut at spaces.
pub fn next_cut(text: &str, from: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = from + MIN_PART;
    while at + 1 < bytes.len() {
        if bytes[at] == b' ' && bytes[at - 1].is_ascii_alphabetic() && bytes[at + 1].is_ascii_alphabetic() {
            return at;
        }
        at += 1;
    }
    bytes.len()
}
