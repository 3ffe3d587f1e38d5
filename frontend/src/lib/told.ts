// Sentences that the service says in English, in the person's language: those of a decision's remedy and of a path's reason. What is
// not known here stays as it was said.
import { words } from './words.svelte';

const ZH: [RegExp, string][] = [
  [/^To run at (\S+?): (.*)\.$/, '若要在 $1 运行：$2。'],
  [/^Join a site: (.*)\.$/, '请先接入中心：$1。'],
  [/^allow site (.*)$/, '允许中心 $1'],
  [/^ask its operator to say its region$/, '请运维人员声明其区域'],
  [/^allow region (.*)$/, '允许区域 $1'],
  [/^allow pool (.*)$/, '允许资源池 $1'],
  [/^accept trust label (.*)$/, '接受信任标签 $1'],
  [/^wait until the operator resumes it$/, '等待运维人员恢复接收'],
  [/^wait until it answers again$/, '等待其恢复响应'],
  [/^wait until the pool is up$/, '等待资源池恢复'],
  [/^ask its operator to map (.*) to a local account$/, '请运维人员为 $1 映射本地账号'],
  [/^bring the data from (.*) as an upload or a URL$/, '以上传或 URL 方式提供 $1 的数据'],
  [/^use data that may be in region (.*) \(now (.*)\)$/, '使用可存放于区域 $1 的数据（现为 $2）'],
  [/^let its outputs come to the service: leave @site out \((.*)\)$/, '让输出回到服务：去掉 @site（$1）'],
  [/^ask for at most (\S+) nodes \(now (.*)\)$/, '节点数不超过 $1（现为 $2）'],
  [/^ask for at most (\S+) processors a node \(now (.*)\)$/, '每节点处理器不超过 $1（现为 $2）'],
  [/^ask for at most (.*) of memory a node \(now (.*)\)$/, '每节点内存不超过 $1（现为 $2）'],
  [/^ask for at most (.*) of disk \(now (.*)\)$/, '磁盘不超过 $1（现为 $2）'],
  [/^ask for at most (\S+) accelerators a node \(now (.*)\)$/, '每节点加速卡不超过 $1（现为 $2）'],
  [/^ask for at most (.*) of walltime \(now (.*)\)$/, '运行时长不超过 $1（现为 $2）'],
  [/^accept the accelerator (.*) \(now (.*)\)$/, '接受加速卡 $1（现为 $2）'],
  [/^go without licence (.*)$/, '不使用许可证 $1'],
  [/^go without an image$/, '不使用镜像'],
  [/^go without the option (.*), or ask its operator for (.*)$/, '不使用选项 $1，或请运维人员设置 $2'],
  [/^accept an end after (.*) \(now (.*)\)$/, '接受在 $1 之后结束（现为 $2）'],
  [/^raise the budget to (.*) \(now (.*)\)$/, '预算提高到 $1（现为 $2）'],
  [/^It goes when all parts wait for a place: hand in, or release, those that are lacking\.$/, '各部分全部等待分配后即可运行：请提交或释放缺少的部分。'],
  [/^It goes when two sites have room at once; allow more sites, or ask for less\.$/, '两个中心同时有空位时即可运行；可允许更多中心，或减少资源需求。'],
  [/^It goes when the queues of two sites are about as long; or let a part be held for longer \(`together_hold`\)\.$/, '两个中心的队列长度相近时即可运行；也可延长等待时间（`together_hold`）。'],
  [/^Move the deadline to (.*), or later\.$/, '将截止时间推迟到 $1 或更晚。'],
  [/^Raise the budget of the group: (.*)\.$/, '提高该组的预算：$1。'],
  [/^a link is down$/, '有链路中断'],
  [/^the only path that is whole$/, '唯一完好的路径'],
  [/^shortest; nobody knows the capacities$/, '最短；容量未知'],
  [/^moves it soonest, in (.+)$/, '传输最快，需 $1'],
  [/^as soon as the next, and cheaper$/, '与次优同时完成，且更便宜'],
  [/^as soon as the next, and less delay$/, '与次优同时完成，且时延更低'],
  [/^(\S+) times as long$/, '需 $1 倍时间'],
  [/^dearer by (\S+) for a GB$/, '每 GB 贵 $1'],
  [/^but cheaper by (\S+) for a GB$/, '但每 GB 便宜 $1'],
  [/^but (\S+) ms less delay$/, '但时延低 $1 毫秒'],
  [/^the same, and longer$/, '相同，但更长'],
];

function one(text: string): string {
  for (const [pattern, wanted] of ZH) {
    const found = pattern.exec(text);
    // The parts of what would help are sentences of their own.
    if (found) return wanted.replace(/\$(\d)/g, (_, at: string) => (wanted.startsWith('若') && at === '2' ? found[2]!.split('; ').map(one).join('；') : found[Number(at)]!));
  }
  return text;
}

export function told(text: string): string {
  if (words.language === 'en' || !text) return text;
  const whole = one(text);
  return whole === text && text.includes('; ') ? text.split('; ').map(one).join('；') : whole;
}
