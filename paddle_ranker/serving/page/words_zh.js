// What the page says in Chinese, in all of its modules. words.js loads this when it is chosen.

export default {
  more_like: "更多类似", by_picture: "以图搜索", by_recording: "以声音搜索",
  language: "语言", search: "搜索", judge: "标注", more: "其他", skip: "跳到结果", query: "查询", suggestions: "建议",
  settings: "设置", use: "召回方式", words: "词语", vectors: "语义", fused: "融合", ranked: "排序", fusion: "融合方法",
  recall: "各路召回", rank_top: "排序前", top_k: "显示", group_by: "合并近似的文档", filters: "更多筛选", stages: "阶段", results: "结果", keys: "按键",
  rrf: "倒数排名", weighted: "加权得分", none: "不排序", yes: "是", no: "否",
  placeholder: "输入查询，例如：{example}", documents: "{n} 篇文档", tries: "试试：",
  welcome: "输入一个查询。", how: "这些结果是怎么找到的？",
  sort: "排序方式", all_words: "只看含有全部词语的", key_for: "这里的搜索需要密钥", key_from: "请向管理员索取。密钥只保存到这个标签页关闭为止。", key_wrong: "密钥不对，请再试一次。", key_send: "进入",
  found: "{total} 篇文档中的前 {n} 条结果，用时 {time}。", matched: "{total} 篇文档含有任一词，用时 {time}。", matched_one: "{total} 篇文档，用时 {time}。", single: "1 篇文档，用时 {time}。", milliseconds: "{n} 毫秒", working: "正在搜索……",
  cut: "概率至少", nothing_meets: "没有文档符合筛选条件。", details: "详情", page_before: "上一页", page_next: "下一页", passed: "{percent}：{n} / {total} 条", all: "不限", more_results: "显示更多",
  moved: "从 {from} 到 {to}", stays: "{to} 不变", ends: "最终第 {to} 位", place: "{stage}第 {rank} 位", missing: "{stage}不在前列",
  probability: "概率", relative: "横条：相关程度，相对于第一条", why: "为什么", open: "打开原文", relevant: "相关", irrelevant: "不相关",
  others: "另有 {n} 条", out: "被排序移出前 {n} 位", similar: "另有 {n} 篇相近：{ids}",
  nothing: "没有找到与“{query}”有关的文档。", filtered: "筛选条件：{filters}。", one_more: "一个字太短，请再输入一个。",
  did_you_mean: "你要找的是", drop_filters: "去掉筛选条件", use_all: "按语义搜索", shorter: "也可以换一个更短或更常见的说法。",
  corrected: "没有文档含“{from}”，已搜索“{to}”。", synonyms: "“{from}”也包括“{to}”。", phrases: "只要含有“{n}”的。", unfound: "没有文档含有“{n}”：结果可以不含它。", unfound_with: "含有{others}的文档都没有“{n}”：结果可以不含它。", excluded: "不含“{n}”。", literal: "按原样搜索", signs: "把符号当作普通字搜索", was_literal: "按原样搜索：没有更正。", not_literal: "恢复更正",
  gone: "服务器没有回应。", busy: "服务器正忙。", refused: "服务器拒绝了这次请求。", failed: "服务器出错了。", unread: "服务器的回答读不懂。",
  starting: "服务器正在启动……", refused_unprocessable: "这次搜索里有一项不成立：{field}。", refused_invalid_request: "这次请求的格式不对：{field}。", refused_too_large: "这次请求太大：{field}。", refused_deadline_exceeded: "没有按时完成。", refused_unavailable: "服务器还没有准备好。", refused_read_only: "这里不接受改动。", refused_not_found: "服务器没有这项功能。", again: "重试", again_in: "{n} 秒后可重试。", stale: "下面仍是上一次“{query}”的结果。",
  late_rank: "排序没有按时完成：下面是融合后的顺序。", late: "没有按时完成：{stage}。",
  nothing_close: "没有找到很接近的内容；下面是相对最近的。", unranked: "没有经过排序模型：下面是融合后的顺序。", too_long: "查询太长：只用了前 {n} 个字。", too_long_by: "查询太长：{name}只读了前 {n} 个字。", unsaved: "没有记下来：{why}", saved: "已记下",
  unfamiliar: "排序模型可能不适合这些文档：得分应在 {expected} 左右，实为 {seen}。",
  key_focus: "输入", key_move: "选择", key_why: "为什么", key_close: "关闭",

  from_title: "标题", from_query: "搜过",

  ascending: "{name}：从低到高", descending: "{name}：从高到低", newest: "{name}：从新到旧", oldest: "{name}：从旧到新",
  relevance: "相关度", more_values: "更多", fewer_values: "收起", facet_counts: "数字：含有任一词的文档数", remove: "去掉 {what}", fold: "筛选", own_order: "默认顺序", clear: "全部去掉", more_facets: "更多字段（{n}）", fewer_facets: "收起字段",
  find_value: "在“{name}”中查找", values_found: "{n} 个值",

  from: "从", to: "到", any: "不限",

  about_words: "只看共有的词，结果排第几", about_vectors: "只看意思，结果排第几", about_fused: "几路结果合成一份",
  about_ranked: "模型逐篇读过，重新排列", legend_up: "排序后上升", legend_down: "下降", legend_same: "不变",
  legend_new: "进入前 {n} 位", legend_out: "移出前 {n} 位",

  page: "第 {n} 页", play_from: "从 {time} 播放",

  unreadable: "无法读取文件：{name}",
  too_large: "文件过大，最多 {most} MB：{name}",

  why_this: "为什么是第 {n} 位？", why_out: "为什么不在前列？", close: "收起", why_sure: "排序模型认为它有 {percent} 的可能回答了查询。",
  why_place: "排序模型把它排在第 {to} 位，之前是第 {from} 位。", why_title: "标题里有你的词：{terms}。", why_text: "正文里有你的词：{terms}。",
  why_corrected: "它有 {terms}，由你的词“{from}”更正而来。", why_synonym: "它有 {terms}，是你的词“{from}”的同义词。",
  why_words: "它与查询有共同的词。", why_vectors: "它的意思与查询相近。", why_field: "它的 {name} 与查询相近。",
  why_ranker: "排序模型读了它和查询。", why_match: "与查询最多有连续 {n} 个词相同。", why_recall: "召回时的名次也计入。", why_features: "它的文字与查询共有什么，也经过权衡。",
  why_missing: "按{stage}没有找到它。", why_behind: "按{stage}，它不在前列。", added: "加 {n}", value: "值 {n}", logit: "logit {n}", at: "第 {places} 字",
  rank: "{stage}第 {n} 位", path: "名次", numbers: "数值", fields: "字段", text: "全文",

  judge_title: "标注", judge_off: "标注没有打开：服务器启动时没有记录日志。", judge_done: "没有待标注的内容了。", back: "回到搜索",
  judge_progress: "已标注 {judged}，还有 {left}", disagree: "召回第 {recall} 位，排序第 {ranked} 位", undo: "撤销",
  skip_pair: "跳过", grade: "等级 {n}", judge_question: "这篇文档回答了查询吗？", judge_empty: "先搜索，再来标注。",
};
