//! llguidance's parser, one token at a time, as its `Matcher` drives it. What that one does not give away is the parser
//! itself, which is asked here which bytes may follow (foresight.rs).
//!
//! A parser that fails or panics refuses everything from then on.

use std::panic::{catch_unwind, AssertUnwindSafe};

use llguidance::api::StopReason;
use llguidance::earley::Parser;
use llguidance::toktrie::SimpleVob;
use llguidance::TokenParser;

type Checked<T> = std::result::Result<T, String>;

pub struct Walker {
    parser: TokenParser,
    error: Option<String>,
}

impl Walker {
    pub fn new(mut parser: TokenParser) -> Walker {
        if parser.is_fresh() {
            parser.start_without_prompt();
        }
        Walker { parser, error: None }
    }

    /// Shares nothing with this one, not even what the lexer has learnt.
    pub fn deep_clone(&self) -> Walker {
        Walker { parser: self.parser.deep_clone(), error: self.error.clone() }
    }

    fn run<T>(&mut self, body: impl FnOnce(&mut TokenParser) -> Checked<T>) -> Checked<T> {
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        let parser = &mut self.parser;
        let result = catch_unwind(AssertUnwindSafe(|| body(parser))).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("panic: {}", text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")))
        });
        if let Err(error) = &result {
            self.error = Some(error.clone());
        }
        result
    }

    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    pub fn is_stopped(&self) -> bool {
        self.error.is_some() || self.parser.stop_reason() != StopReason::NotStopped
    }

    pub fn is_accepting(&mut self) -> Checked<bool> {
        self.run(|parser| Ok(parser.is_accepting()))
    }

    pub fn compute_mask(&mut self) -> Checked<SimpleVob> {
        self.run(|parser| parser.compute_mask().map_err(|e| e.to_string()))
    }

    /// False: the token is not allowed, and nothing has changed.
    pub fn try_consume(&mut self, token: u32) -> Checked<bool> {
        self.run(|parser| {
            if !parser.validate_token(token).map_err(|e| e.to_string())? {
                return Ok(false);
            }
            let num_backtracked = parser.consume_token(token).map_err(|e| e.to_string())?;
            parser.check_stop().map_err(|e| e.to_string())?;
            match num_backtracked {
                0 => Ok(true),
                _ => Err("unexpected backtracking".to_owned()),
            }
        })
    }

    pub fn rollback(&mut self, count: usize) -> Checked<()> {
        self.run(|parser| parser.rollback(count).map_err(|e| e.to_string()))
    }

    /// For questions that change nothing: what is pushed there is popped again.
    pub fn ask<T>(&mut self, question: impl FnOnce(&mut Parser) -> T) -> Checked<T> {
        self.run(|parser| Ok(question(&mut parser.parser)))
    }
}
