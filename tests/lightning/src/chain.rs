//! A regtest chain in memory: blocks that are valid to a light client, and
//! transactions that spend what there is. Scripts are not run.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use l402::{Clock as _, SystemClock};
use ldk_node::bitcoin::absolute::{Height, LockTime, Time};
use ldk_node::bitcoin::block::{Header, Version};
use ldk_node::bitcoin::constants::{COINBASE_MATURITY, genesis_block};
use ldk_node::bitcoin::hashes::Hash as _;
use ldk_node::bitcoin::opcodes::OP_0;
use ldk_node::bitcoin::opcodes::all::{OP_PUSHNUM_1, OP_RETURN};
use ldk_node::bitcoin::pow::Work;
use ldk_node::bitcoin::script::Builder;
use ldk_node::bitcoin::transaction;
use ldk_node::bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Txid, Witness,
};

/// Blocks there are from the start, so that coinbases of the first can be spent.
const FIRST_BLOCKS: u32 = 110;

/// The chain, and what waits for a block.
#[derive(Debug)]
pub struct Chain(Mutex<State>);

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) blocks: Vec<Block>,
    heights: HashMap<BlockHash, usize>,
    /// The work of the chain up to each block.
    work: Vec<Work>,
    unspent: HashMap<OutPoint, Coin>,
    /// In the order in which they came, so parents first.
    pub(crate) mempool: Vec<Waiting>,
    /// The oldest coinbase that was not spent.
    next_coinbase: usize,
}

#[derive(Debug)]
struct Coin {
    value: Amount,
    height: u32,
    is_coinbase: bool,
}

/// A transaction in the mempool.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) txid: Txid,
    pub(crate) transaction: Transaction,
    /// When it came, in unix seconds.
    pub(crate) time: u32,
    pub(crate) height: usize,
}

impl Chain {
    pub(crate) fn new() -> Self {
        let genesis = genesis_block(Network::Regtest);
        let mut state = State {
            heights: HashMap::from([(genesis.block_hash(), 0)]),
            work: vec![genesis.header.work()],
            blocks: vec![genesis],
            unspent: HashMap::new(),
            mempool: Vec::new(),
            next_coinbase: 1,
        };
        for ago in (1..=FIRST_BLOCKS).rev() {
            state.mine(now() - 600 * ago);
        }
        Self(Mutex::new(state))
    }

    /// Mines so many blocks, the first with all that waits.
    pub fn mine(&self, blocks: u32) {
        let mut state = self.state();
        (0..blocks).for_each(|_| state.mine(now()));
    }

    /// Mines a block that says it was found at this unix second, or as soon
    /// after the last one as it may be.
    pub fn mine_at(&self, time: u32) {
        self.state().mine(time);
    }

    /// Sends the coins of one block to this script, with the next block.
    ///
    /// # Panics
    /// No coinbase has matured.
    pub fn fund(&self, script: ScriptBuf) {
        let mut state = self.state();
        let coinbase = &state.blocks[state.next_coinbase].txdata[0];
        let transaction = Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            // Anyone may spend it.
            input: vec![TxIn {
                previous_output: OutPoint::new(coinbase.compute_txid(), 0),
                ..TxIn::default()
            }],
            output: vec![TxOut {
                value: coinbase.output[0].value - Amount::from_sat(1_000),
                script_pubkey: script,
            }],
        };
        state.next_coinbase += 1;
        state.submit(transaction).expect("a mature coinbase");
    }

    pub(crate) fn tip(&self) -> BlockHash {
        let state = self.state();
        state.blocks[state.tip()].block_hash()
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn tip(&self) -> usize {
        self.blocks.len() - 1
    }

    /// A block, its height, and the work up to it.
    pub(crate) fn block(&self, hash: BlockHash) -> Option<(&Block, usize, Work)> {
        let height = *self.heights.get(&hash)?;
        Some((&self.blocks[height], height, self.work[height]))
    }

    /// Takes a transaction, to be mined with the next block.
    pub(crate) fn submit(&mut self, transaction: Transaction) -> Result<Txid, &'static str> {
        let txid = transaction.compute_txid();
        if self.mempool.iter().any(|waiting| waiting.txid == txid) {
            return Ok(txid);
        }
        let height = u32::try_from(self.blocks.len()).expect("few blocks");
        // The next block may have what was locked up to the last one.
        let (tip, time) = (Height::from_consensus(height - 1), Time::from_consensus(now()));
        if !transaction.is_absolute_timelock_satisfied(tip.expect("few blocks"), time.expect("a time of now"))
        {
            return Err("non-final");
        }
        let mut value_in = Amount::ZERO;
        for input in &transaction.input {
            let spent = input.previous_output;
            let spends = |other: &Waiting| other.transaction.input.iter().any(|i| i.previous_output == spent);
            if self.mempool.iter().any(spends) {
                return Err("txn-mempool-conflict");
            }
            let waits = || {
                let parent = self.mempool.iter().find(|waiting| waiting.txid == spent.txid)?;
                Some(parent.transaction.output.get(spent.vout as usize)?.value)
            };
            value_in += match self.unspent.get(&spent) {
                Some(coin) if coin.is_coinbase && height - coin.height < COINBASE_MATURITY => {
                    return Err("bad-txns-premature-spend-of-coinbase");
                }
                Some(coin) => coin.value,
                None => waits().ok_or("bad-txns-inputs-missingorspent")?,
            };
        }
        if value_in < transaction.output.iter().map(|output| output.value).sum() {
            return Err("bad-txns-in-belowout");
        }
        self.mempool.push(Waiting { txid, transaction, time: now(), height: self.tip() });
        Ok(txid)
    }

    fn mine(&mut self, time: u32) {
        let height = self.blocks.len();
        let previous = self.blocks[height - 1].header;
        let mut txdata = vec![coinbase(height)];
        txdata.extend(self.mempool.drain(..).map(|waiting| waiting.transaction));
        let header = Header {
            version: Version::from_consensus(0x2000_0000),
            prev_blockhash: previous.block_hash(),
            merkle_root: TxMerkleNode::all_zeros(),
            time: time.max(previous.time + 1),
            bits: CompactTarget::from_consensus(0x207f_ffff),
            nonce: 0,
        };
        let mut block = Block { header, txdata };
        commit_to_witnesses(&mut block);
        block.header.merkle_root = block.compute_merkle_root().expect("a coinbase");
        while block.header.validate_pow(block.header.target()).is_err() {
            block.header.nonce += 1;
        }

        for transaction in &block.txdata {
            let txid = transaction.compute_txid();
            for input in &transaction.input {
                self.unspent.remove(&input.previous_output);
            }
            for (vout, output) in (0..).zip(&transaction.output) {
                let coin = Coin {
                    value: output.value,
                    height: u32::try_from(height).expect("few blocks"),
                    is_coinbase: transaction.is_coinbase(),
                };
                self.unspent.insert(OutPoint::new(txid, vout), coin);
            }
        }
        self.heights.insert(block.block_hash(), height);
        self.work.push(self.work[height - 1] + block.header.work());
        self.blocks.push(block);
    }
}

/// A coinbase that pays whoever spends it first.
fn coinbase(height: usize) -> Transaction {
    let height = i64::try_from(height).expect("few blocks");
    let input = TxIn {
        previous_output: OutPoint::null(),
        script_sig: Builder::new().push_int(height).push_opcode(OP_0).into_script(),
        sequence: Sequence::MAX,
        witness: Witness::from_slice(&[[0; 32]]),
    };
    let value = Amount::from_sat(5_000_000_000 >> (height / 150));
    let script_pubkey = Builder::new().push_opcode(OP_PUSHNUM_1).into_script();
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input],
        output: vec![TxOut { value, script_pubkey }],
    }
}

/// Writes the root of the witnesses into the coinbase (BIP 141).
fn commit_to_witnesses(block: &mut Block) {
    let root = block.witness_root().expect("a coinbase");
    let commitment = Block::compute_witness_commitment(&root, &[0; 32]);
    let mut data = [0xaa, 0x21, 0xa9, 0xed].to_vec();
    data.extend_from_slice(commitment.as_byte_array());
    let data = <[u8; 36]>::try_from(data).expect("4 and 32 bytes");
    let script_pubkey = Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script();
    block.txdata[0].output.push(TxOut { value: Amount::ZERO, script_pubkey });
}

fn now() -> u32 {
    let since_epoch = SystemClock.now().duration_since(UNIX_EPOCH).expect("a time after 1970");
    u32::try_from(since_epoch.as_secs()).expect("a time before 2106")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spends the first output of each, for all that it is worth and so much more.
    fn spending(parents: &[&Transaction], more: Amount) -> Transaction {
        let previous = parents.iter().map(|parent| OutPoint::new(parent.compute_txid(), 0));
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: previous.map(|previous_output| TxIn { previous_output, ..TxIn::default() }).collect(),
            output: vec![TxOut {
                value: parents.iter().map(|parent| parent.output[0].value).sum::<Amount>() + more,
                script_pubkey: ScriptBuf::new(),
            }],
        }
    }

    #[test]
    fn what_a_node_would_refuse_is_refused() {
        let chain = Chain::new();
        let mut state = chain.state();
        let coinbases: Vec<_> = state.blocks.iter().map(|block| block.txdata[0].clone()).collect();
        let parent = spending(&[&coinbases[1]], Amount::ZERO);
        state.submit(parent.clone()).unwrap();
        state.submit(parent.clone()).unwrap();
        let child = spending(&[&parent], Amount::ZERO);
        state.submit(child.clone()).unwrap();
        assert_eq!(state.mempool.len(), 2);

        let conflict = spending(&[&coinbases[1], &coinbases[2]], Amount::ZERO);
        let premature = spending(&[&coinbases[110]], Amount::ZERO);
        let missing = spending(&[&conflict], Amount::ZERO);
        let inflation = spending(&[&coinbases[2]], Amount::from_sat(1));
        let mut later = spending(&[&coinbases[2]], Amount::ZERO);
        later.lock_time = LockTime::from_height(111).unwrap();
        later.input[0].sequence = Sequence::ENABLE_LOCKTIME_NO_RBF;
        for (transaction, reason) in [
            (&conflict, "txn-mempool-conflict"),
            (&premature, "bad-txns-premature-spend-of-coinbase"),
            (&missing, "bad-txns-inputs-missingorspent"),
            (&inflation, "bad-txns-in-belowout"),
            (&later, "non-final"),
        ] {
            assert_eq!(state.submit(transaction.clone()), Err(reason));
        }

        drop(state);
        chain.mine(1);
        let mut state = chain.state();
        assert!(state.mempool.is_empty());
        for spent in [&conflict, &child] {
            assert_eq!(state.submit(spent.clone()), Err("bad-txns-inputs-missingorspent"));
        }
        state.submit(later).unwrap();
    }

    #[test]
    fn blocks_are_valid() {
        let chain = Chain::new();
        chain.fund(ScriptBuf::new());
        chain.mine_at(0);
        let state = chain.state();
        let mut work = state.blocks[0].header.work();
        for pair in state.blocks.windows(2) {
            let [previous, block] = pair else { unreachable!() };
            assert_eq!(block.header.prev_blockhash, previous.block_hash());
            assert!(block.header.time > previous.header.time);
            block.header.validate_pow(block.header.target()).unwrap();
            assert!(block.check_merkle_root() && block.check_witness_commitment());
            work = work + block.header.work();
        }
        assert_eq!(state.block(state.blocks[111].block_hash()).unwrap().2, work);
        assert_eq!(state.blocks[111].txdata.len(), 2);
    }
}
