// Grammars of the Rust library behind text/grammar.h. Private to this room.
#pragma once

#include <memory>

#include "text/grammar.h"
#include "text/rust_text.h"

namespace inferneo {

// `text` outlives the call only; the compiled grammar stands on its own.
Result<std::shared_ptr<const GrammarCompiled>> compile_rust_grammar(const rust_text::TextHandle* text,
                                                                    const GrammarSpec& grammar, int32_t logits_width,
                                                                    std::span<const Token> eos);

}  // namespace inferneo
