"use strict";

// Random numbers by seed, the same as gesso's own: splitmix64 makes the seed of a sample out of its number, and torch's
// generator for CPUs (the Mersenne Twister, with Box and Muller's normals) makes the sample's numbers.

const MASK = (1n << 64n) - 1n;

// gesso.common.randomness.mix_seed: one seed out of several whole numbers, as a BigInt.
function mixSeed(...numbers) {
  let mixed = 0n;
  for (const number of numbers) {
    mixed = ((mixed ^ BigInt(number)) + 0x9e3779b97f4a7c15n) & MASK;
    mixed = ((mixed ^ (mixed >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    mixed = ((mixed ^ (mixed >> 27n)) * 0x94d049bb133111ebn) & MASK;
    mixed ^= mixed >> 31n;
  }
  return mixed >> 1n;
}

// torch.Generator().manual_seed(seed)
class Generator {
  constructor(seed) {
    this.words = new Uint32Array(624);
    this.words[0] = Number(BigInt(seed) & 0xffffffffn);
    for (let place = 1; place < 624; place++) {
      const before = this.words[place - 1];
      this.words[place] = Math.imul(1812433253, before ^ (before >>> 30)) + place;
    }
    this.place = 624;
    this.spare = null;
  }

  // 32 random bits.
  bits() {
    if (this.place === 624) this.renew();
    let word = this.words[this.place++];
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  }

  renew() {
    const words = this.words;
    for (let place = 0; place < 624; place++) {
      const mixed = (words[place] & 0x80000000) | (words[(place + 1) % 624] & 0x7fffffff);
      words[place] = words[(place + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.place = 0;
  }

  // Multiples of 2^-24 and of 2^-53 in [0, 1).
  single() { return (this.bits() & 0xffffff) * 2 ** -24; }
  double() {
    const high = this.bits(), low = this.bits();
    return ((high & 0x1fffff) * 2 ** 32 + low) * 2 ** -53;
  }

  // torch.randn(count): few are drawn one by one, many in blocks of 16.
  normals(count) {
    const drawn = new Float32Array(count);
    if (count < 16) {
      for (let place = 0; place < count; place++) drawn[place] = this.normal();
      return drawn;
    }
    for (let place = 0; place < count; place++) drawn[place] = this.single();
    for (let first = 0; first < count - 15; first += 16) Generator.inPairs(drawn, first);
    if (count % 16) {
      for (let place = count - 16; place < count; place++) drawn[place] = this.single();
      Generator.inPairs(drawn, count - 16);
    }
    return drawn;
  }

  normal() {
    if (this.spare !== null) {
      const spare = this.spare;
      this.spare = null;
      return spare;
    }
    const angle = 2 * Math.PI * this.double(), radius = Math.sqrt(-2 * Math.log1p(-this.double()));
    this.spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }

  static inPairs(drawn, first) {
    for (let place = first; place < first + 8; place++) {
      const radius = Math.sqrt(-2 * Math.log(1 - drawn[place])), angle = 2 * Math.PI * drawn[place + 8];
      drawn[place] = radius * Math.cos(angle);
      drawn[place + 8] = radius * Math.sin(angle);
    }
  }
}

// The normal distribution's function: the series of erf, whose terms are all positive.
function below(value) {
  const x = Math.abs(value) / Math.SQRT2;
  let term = x, sum = x;
  for (let number = 1; term > 1e-17 * sum; number++) {
    term *= (2 * x * x) / (2 * number + 1);
    sum += term;
  }
  const erf = Math.min(1, (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum);
  return (value < 0 ? 1 - erf : 1 + erf) / 2;
}

// Normal numbers as those of the normal distribution that ends at -bound and bound, in the same order.
function truncated(drawn, bound) {
  const outside = 1 - below(bound);
  return drawn.map((value) => {
    const share = outside + (1 - 2 * outside) * below(value);
    let found = 0;
    for (let round = 0; round < 12; round++) {
      found -= ((below(found) - share) * Math.sqrt(2 * Math.PI)) / Math.exp((-found * found) / 2);
    }
    return found;
  });
}
