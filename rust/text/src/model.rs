//! The library's tokenizer around a model that may be ours.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::BpeTrainer;
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::{Model, Result, Token, TokenizerImpl};

use crate::bpe::Bpe;

pub type HfTokenizer =
    TokenizerImpl<AnyModel, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

pub enum AnyModel {
    Ours(Bpe),
    Library(ModelWrapper),
}

impl<'de> Deserialize<'de> for AnyModel {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        ModelWrapper::deserialize(deserializer).map(AnyModel::Library)
    }
}

impl Model for AnyModel {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> Result<Vec<Token>> {
        match self {
            AnyModel::Ours(model) => Ok(model.tokenize(sequence)?),
            AnyModel::Library(model) => model.tokenize(sequence),
        }
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        match self {
            AnyModel::Ours(model) => model.words().id(token),
            AnyModel::Library(model) => model.token_to_id(token),
        }
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        match self {
            AnyModel::Ours(model) => model.words().text(id).map(str::to_owned),
            AnyModel::Library(model) => model.id_to_token(id),
        }
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        match self {
            AnyModel::Ours(model) => model.words().iter().map(|(word, id)| (word.to_owned(), id)).collect(),
            AnyModel::Library(model) => model.get_vocab(),
        }
    }

    fn get_vocab_size(&self) -> usize {
        match self {
            AnyModel::Ours(model) => model.words().len(),
            AnyModel::Library(model) => model.get_vocab_size(),
        }
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> Result<Vec<PathBuf>> {
        match self {
            AnyModel::Ours(_) => Err("a model that was read to tokenize is not written".into()),
            AnyModel::Library(model) => model.save(folder, prefix),
        }
    }

    fn get_trainer(&self) -> TrainerWrapper {
        match self {
            AnyModel::Ours(_) => TrainerWrapper::BpeTrainer(BpeTrainer::default()),
            AnyModel::Library(model) => model.get_trainer(),
        }
    }
}
