// Something asked for again and again, while the page is seen and it is wanted. Errors make it rarer: 2, 4, ... 30 s. A
// route that is not there is asked for once a minute, in case the server is replaced; one that starts, every two
// seconds.
import {onKeys} from './keys.js';

const LONGEST_PAUSE = 30;
const MISSING_PAUSE = 60;
const STARTING_PAUSE = 2;

export class Poller {
  constructor(task, everySeconds) {
    this.task = task;
    this.everySeconds = everySeconds;
    this.wanted = false;
    this.running = false;
    this.again = false;
    this.failures = 0;
    this.timer = null;
    document.addEventListener('visibilitychange', () => this.wake());
    onKeys(() => {
      this.failures = 0;
      this.wake();
    });
  }

  start() {
    this.wanted = true;
    this.wake();
  }

  stop() {
    this.wanted = false;
    clearTimeout(this.timer);
  }

  // Now, and from then on in the usual rhythm.
  wake() {
    clearTimeout(this.timer);
    if (!this.wanted || document.hidden) return;
    if (this.running) {
      this.again = true;
      return;
    }
    this.run();
  }

  pauseAfter({status}) {
    if (status === 404) return MISSING_PAUSE;
    if (status === 503) return Math.max(STARTING_PAUSE, this.everySeconds);
    return Math.min(LONGEST_PAUSE, this.everySeconds * 2 ** this.failures);
  }

  async run() {
    this.running = true;
    let pause = this.everySeconds;
    try {
      await this.task();
      this.failures = 0;
    } catch (error) {
      this.failures += 1;
      pause = this.pauseAfter(error);
    }
    this.running = false;
    if (!this.wanted || document.hidden) return;
    if (this.again) pause = 0;
    this.again = false;
    this.timer = setTimeout(() => this.wake(), pause * 1000);
  }
}
